//! What MobileNetV1 and V2 are once built: a chain of feature blocks, a head, and the source they follow.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::engine::{Graph, Value};
use crate::error::LoadReport;
use crate::layers::{
    Gradient, Initializer, Layer, Linear, LoadMode, Role, Sequential, Signal, StateDict, Summary, Tape, derive_seed,
    dotted,
};
use crate::{Architecture, Element, Error, Padding, Result, Runtime, Shape, Tensor, WeightSource};

/// What follows the feature blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Head {
    /// Global average pooling, dropout and a linear classifier: logits `[N, 1, 1, classes]`.
    #[default]
    Classifier,
    /// Nothing: the last feature map `[N, H, W, C]`.
    FeatureMap,
    /// Global average pooling: features `[N, 1, 1, C]`.
    AveragePool,
    /// Global max pooling: features `[N, 1, 1, C]`.
    MaxPool,
}

/// A network of the MobileNet family: `[N, H, W, C]` images to logits or features.
///
/// Blocks are named `features.0` (the stem), `features.1` and so on, the classifier `classifier`. Which
/// architecture it is does not change how it is used: [`MobileNetV1`](super::MobileNetV1) and
/// [`MobileNetV2`](super::MobileNetV2) lend this type and turn into it.
#[derive(Clone, Debug)]
pub struct Network<T: Element> {
    pub(super) architecture: Architecture,
    pub(super) source: WeightSource,
    pub(super) features: Sequential<T>,
    pub(super) strides: Vec<usize>,
    pub(super) head: Sequential<T>,
}

impl<T: Element> Network<T> {
    /// The family it belongs to.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The framework whose conventions it follows.
    #[must_use]
    pub fn source(&self) -> WeightSource {
        self.source
    }

    /// The feature blocks; the first is the stem.
    #[must_use]
    pub fn features(&self) -> &Sequential<T> {
        &self.features
    }

    /// What follows the feature blocks: `pool`, `dropout`, `classifier`, as far as the [`Head`] has them.
    #[must_use]
    pub fn head(&self) -> &Sequential<T> {
        &self.head
    }

    /// Input pixels per output pixel of each feature block: 2 for the stem, usually 32 for the last. A detector
    /// takes the last block of each stride.
    #[must_use]
    pub fn block_strides(&self) -> &[usize] {
        &self.strides
    }

    /// The feature maps that these blocks give, in the order asked for; blocks after the last one do not run.
    ///
    /// ```
    /// use mobilenet::{MobileNetV2, Runtime, Tensor};
    /// let net = MobileNetV2::<f32>::builder().alpha(0.35).build()?;
    /// let images = Tensor::zeros([1, 32, 32, 3])?;
    /// let maps = net.forward_features(&images, &[3, 6], &Runtime::new())?;
    /// assert_eq!([maps[0].shape(), maps[1].shape()], [[1, 8, 8, 8], [1, 4, 4, 16]]);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such block, or the network does not take such an input.
    pub fn forward_features(&self, input: &Tensor<T>, blocks: &[usize], runtime: &Runtime) -> Result<Vec<Tensor<T>>> {
        let count = self.features.len();
        if let Some(&block) = blocks.iter().find(|&&block| block >= count) {
            return Err(Error::invalid("forward_features", "block", block, format_args!("below {count}")));
        }
        let last = blocks.iter().max().map_or(0, |block| block + 1);
        let mut maps: Vec<Tensor<T>> = Vec::with_capacity(last);
        for (index, (_, block)) in self.features.iter().take(last).enumerate() {
            maps.push(block.forward_with(maps.last().unwrap_or(input), runtime)?);
            // Frees the map before this one unless it was asked for.
            if index > 0 && !blocks.contains(&(index - 1)) {
                maps[index - 1] = Tensor::zeros([0; 4])?;
            }
        }
        Ok(blocks.iter().map(|&block| maps[block].clone()).collect())
    }

    /// Layers, output shapes, parameters and multiply-adds at an input shape.
    ///
    /// # Errors
    ///
    /// If the network does not take such an input.
    pub fn summary(&self, input: Shape) -> Result<Summary> {
        Summary::of(self, input)
    }

    /// A copy of all parameters, marked with the network's source.
    #[must_use]
    pub fn state_dict(&self) -> StateDict<T> {
        StateDict::of(self, Some(self.source))
    }

    /// Takes weights in by name: of a borrowed state dict copies, an owned one's arrays themselves.
    ///
    /// # Errors
    ///
    /// [`Error::SourceMismatch`] if they were trained with another padding or epsilon than the network was built
    /// with; [`Error::StateMismatch`] as [`StateDict::load_into`]. Either way the network is unchanged.
    pub fn load<'s>(&mut self, state: impl Into<Cow<'s, StateDict<T>>>, mode: LoadMode) -> Result<LoadReport> {
        let state = state.into();
        if let Some(found) = state.source()
            && conventions(found, self.architecture) != conventions(self.source, self.architecture)
        {
            return Err(Error::SourceMismatch { found: found.name(), expected: self.source.name() });
        }
        match state {
            Cow::Borrowed(state) => state.load_into(self, mode),
            Cow::Owned(state) => state.move_into(self, mode),
        }
    }
}

impl<T: Element> Network<T> {
    /// Keeps training from changing the feature blocks, their running statistics too: only the head learns, and a step
    /// costs little more than inference.
    pub fn freeze_backbone(&mut self) -> &mut Self {
        self.features.visit_mut("", &mut |_, parameter| parameter.freeze());
        self
    }

    /// Freezes the feature blocks but the last `count`, which train, their running statistics too; so does the head.
    ///
    /// # Errors
    ///
    /// If there are not so many blocks.
    pub fn unfreeze_last(&mut self, count: usize) -> Result<&mut Self> {
        let blocks = self.features.len();
        if count > blocks {
            return Err(Error::invalid("unfreeze_last", "blocks", count, format_args!("at most {blocks}")));
        }
        self.freeze_backbone();
        for (_, block) in self.features.children_mut().into_iter().skip(blocks - count) {
            block.visit_mut("", &mut |_, parameter| parameter.unfreeze());
        }
        self.head.visit_mut("", &mut |_, parameter| parameter.unfreeze());
        Ok(self)
    }

    /// Puts a new classifier of so many classes in place of the network's own, with initial weights of its source and
    /// seed 0.
    ///
    /// # Errors
    ///
    /// If the network has no classifier, or the classes are none or absurdly many.
    pub fn replace_head(&mut self, classes: usize) -> Result<&mut Self> {
        self.replace_head_with(classes, self.source.into(), 0)
    }

    /// As [`Network::replace_head`], with the classifier of a network that was built with this initialiser and seed.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn replace_head_with(&mut self, classes: usize, initializer: Initializer, seed: u64) -> Result<&mut Self> {
        let inputs = self.head.iter().find(|(name, _)| *name == "classifier").and_then(|(_, layer)| {
            let mut inputs = None;
            layer.visit("", &mut |_, parameter| {
                if parameter.role() == Role::LinearWeight {
                    inputs = parameter.shape().first().copied();
                }
            });
            inputs
        });
        let Some(inputs) = inputs else {
            return Err(Error::invalid("replace_head", "head", "without a classifier", "`Head::Classifier`"));
        };
        let classifier = classifier([inputs, classes], initializer, seed, self.features.len())?;
        self.head.replace("classifier", classifier)?;
        Ok(self)
    }
}

/// The classifier after this many feature blocks of a network with this seed.
pub(super) fn classifier<T: Element>(
    [inputs, classes]: [usize; 2],
    initializer: Initializer,
    seed: u64,
    blocks: usize,
) -> Result<Linear<T>> {
    Linear::builder(inputs, classes).initializer(initializer).seed(derive_seed(seed, blocks as u64)).build()
}

/// What changes a trained network's answers without changing a shape.
fn conventions(source: WeightSource, architecture: Architecture) -> (f64, [Padding; 2]) {
    let padding = |is_stem| source.padding(architecture, 3, 2, is_stem);
    (source.batch_norm(architecture).epsilon, [padding(true), padding(false)])
}

impl<T: Element> Layer<T> for Network<T> {
    fn kind(&self) -> &'static str {
        match self.architecture {
            Architecture::MobileNetV1 => "MobileNetV1",
            Architecture::MobileNetV2 => "MobileNetV2",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.head.output_shape(self.features.output_shape(input)?)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        self.head.forward_with(&self.features.forward_with(input, runtime)?, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let features = self.features.forward_train(input, tape)?;
        self.head.forward_train(features, tape)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        match self.head.backward(d_output, tape)? {
            Some(gradient) => self.features.backward(gradient, tape),
            None => Ok(None),
        }
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let features = self.features.lower(graph, &dotted(name, "features"), input)?;
        self.head.lower(graph, name, features)
    }

    fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
        let features = self.features.iter().map(|(name, layer)| (format!("features.{name}"), layer));
        features.chain(self.head.children()).collect()
    }

    fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        let features = self.features.children_mut().into_iter();
        features.map(|(name, layer)| (format!("features.{name}"), layer)).chain(self.head.children_mut()).collect()
    }
}

/// A [`Network`] known to be of one architecture.
macro_rules! network_type {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Debug)]
        pub struct $name<T: Element>(Network<T>);

        impl<T: Element> core::ops::Deref for $name<T> {
            type Target = Network<T>;

            fn deref(&self) -> &Network<T> {
                &self.0
            }
        }

        impl<T: Element> core::ops::DerefMut for $name<T> {
            fn deref_mut(&mut self) -> &mut Network<T> {
                &mut self.0
            }
        }

        impl<T: Element> From<$name<T>> for Network<T> {
            fn from(network: $name<T>) -> Self {
                network.0
            }
        }

        impl<T: Element> Layer<T> for $name<T> {
            fn kind(&self) -> &'static str {
                self.0.kind()
            }

            fn output_shape(&self, input: Shape) -> Result<Shape> {
                self.0.output_shape(input)
            }

            fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
                self.0.forward_with(input, runtime)
            }

            fn forward_train(
                &mut self,
                input: crate::layers::Signal<T>,
                tape: &mut crate::layers::Tape<T>,
            ) -> Result<crate::layers::Signal<T>> {
                self.0.forward_train(input, tape)
            }

            fn backward(
                &mut self,
                d_output: crate::layers::Gradient<T>,
                tape: &mut crate::layers::Tape<T>,
            ) -> Result<Option<crate::layers::Gradient<T>>> {
                self.0.backward(d_output, tape)
            }

            fn lower<'a>(
                &'a self,
                graph: &mut crate::engine::Graph<'a>,
                name: &str,
                input: crate::engine::Value,
            ) -> Result<crate::engine::Value> {
                self.0.lower(graph, name, input)
            }

            fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
                self.0.children()
            }

            fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
                self.0.children_mut()
            }
        }
    };
}
pub(super) use network_type;
