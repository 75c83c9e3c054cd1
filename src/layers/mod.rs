//! Layers: parameters and the math that uses them.
//!
//! A layer knows its forward, its output shape and its named parameters; composition is by value, without a graph.
//! Each layer has one builder, which checks everything in `build`, takes an initialiser and a seed, and is a serde
//! value (feature `serde`): a network is saved as its builders and its [`StateDict`].

/// By-value setters of builders: `name: type => field;`.
macro_rules! setters {
    ($($(#[$attribute:meta])* $name:ident: $type:ty => $($field:ident).+;)*) => {$(
        $(#[$attribute])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$($field).+ = $name;
            self
        }
    )*};
}

mod activation;
mod block;
mod conv;
mod conv_bn_relu;
mod depthwise;
mod depthwise_separable;
mod dropout;
mod filter;
mod frozen;
mod init;
mod inverted_residual;
mod linear;
mod norm;
mod parameter;
mod pattern;
mod pool;
mod sequential;
mod signal;
mod state;
mod summary;
mod tape;

pub use activation::{Activation, Relu, Relu6, Softmax};
pub use conv::{Conv2d, Conv2dBuilder};
pub use conv_bn_relu::{ConvBnRelu, ConvBnReluBuilder};
pub use depthwise::{DepthwiseConv2d, DepthwiseConv2dBuilder};
pub use depthwise_separable::{DepthwiseSeparable, DepthwiseSeparableBuilder};
pub use dropout::Dropout;
pub use init::Initializer;
pub use inverted_residual::{InvertedResidual, InvertedResidualBuilder};
pub use linear::{Flatten, Linear, LinearBuilder};
pub use norm::{BatchNorm2d, BatchNorm2dBuilder};
pub use parameter::{Parameter, Role};
pub use pool::{GlobalAveragePool, GlobalMaxPool};
pub use sequential::Sequential;
pub use signal::{Gradient, Signal};
pub use state::{LoadMode, StateDict};
pub use summary::{Summary, SummaryRow};
pub use tape::Tape;

pub(crate) use filter::{MAX_CHANNELS, check_range};
pub(crate) use init::derive_seed;
pub(crate) use pattern::matches;
pub(crate) use setters;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::engine::{CompileOptions, Engine, Graph, Value};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// A function of one tensor with named parameters.
///
/// Object-safe, `Send` and `Sync`: inference borrows the layer, so threads may share it.
pub trait Layer<T: Element>: CloneLayer<T> + fmt::Debug + Send + Sync {
    /// The type's name in summaries, such as `ConvBnRelu`.
    fn kind(&self) -> &'static str;

    /// The shape [`Layer::forward`] gives for an input of this shape, without computing it.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn output_shape(&self, input: Shape) -> Result<Shape>;

    /// Inference on a runtime of the caller's choice.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>>;

    /// Inference at the machine's best SIMD level on the calling thread.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn forward(&self, input: &Tensor<T>) -> Result<Tensor<T>> {
        self.forward_with(input, &Runtime::new())
    }

    /// The forward pass of a training step: normalisations use the batch and update their running statistics, dropout
    /// drops. What [`Layer::backward`] needs is pushed to the tape; a layer whose output needs no gradient pushes
    /// nothing.
    ///
    /// By default a frozen layer is its inference, and any other an error: a layer of your own that trains says how.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input, or does not train.
    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        if self.is_frozen() && !input.needs_gradient() {
            let input = input.into_tensor(tape)?;
            return Ok(Signal::new(self.forward_with(&input, tape.runtime())?));
        }
        Err(Error::invalid("forward_train", "layer", self.kind(), "one that implements `forward_train` and `backward`"))
    }

    /// Takes the gradient by the output of the last [`Layer::forward_train`], adds to the parameters' gradients, and
    /// returns the one by the input, unless that input needed none.
    ///
    /// # Errors
    ///
    /// If the tape holds no forward pass of this layer, or the layer does not train.
    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let _ = (d_output, tape);
        Err(Error::invalid("backward", "layer", self.kind(), "one that implements `forward_train` and `backward`"))
    }

    /// Whether training does nothing here that inference would not: no parameter trains, no statistic is taken, nothing
    /// is dropped.
    fn is_frozen(&self) -> bool {
        let mut frozen = true;
        let children = self.children();
        if children.is_empty() {
            self.visit("", &mut |_, parameter| frozen &= parameter.is_frozen());
            return frozen;
        }
        children.iter().all(|(_, child)| child.is_frozen())
    }

    /// Keeps training from changing the parameters whose names match: equal to the pattern or below it (`features.3`),
    /// with `*` for any run of characters. A normalisation whose running statistics are frozen uses them and leaves
    /// them. Returns how many there are.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn freeze(&mut self, pattern: &str) -> Result<usize> {
        let mut count = 0;
        self.visit_mut("", &mut |name, parameter| {
            if matches(pattern, &name) {
                parameter.freeze();
                count += 1;
            }
        });
        found("freeze", pattern, count)
    }

    /// Undoes [`Layer::freeze`].
    ///
    /// # Errors
    ///
    /// If no parameter's name matches.
    fn unfreeze(&mut self, pattern: &str) -> Result<usize> {
        let mut count = 0;
        self.visit_mut("", &mut |name, parameter| {
            if matches(pattern, &name) {
                parameter.unfreeze();
                count += 1;
            }
        });
        found("unfreeze", pattern, count)
    }

    /// Starts a new accumulation of every parameter's gradient.
    fn zero_gradients(&mut self) {
        self.visit_mut("", &mut |_, parameter| parameter.zero_gradient());
    }

    /// The layers this one is made of, in order, with their names; empty for a leaf. Each one's input is the output
    /// of the one before: what [`Summary`] walks.
    fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
        Vec::new()
    }

    /// As [`Layer::children`], to change them.
    fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        Vec::new()
    }

    /// Shows every parameter with its dotted name, `prefix` in front, always in the same order. A leaf with
    /// parameters writes its own; others show their children's.
    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        for (name, child) in self.children() {
            child.visit(&dotted(prefix, &name), visitor);
        }
    }

    /// As [`Layer::visit`], to change them.
    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        for (name, child) in self.children_mut() {
            child.visit_mut(&dotted(prefix, &name), visitor);
        }
    }

    /// Multiplications that are each followed by an addition, for an input of this shape; convolutions and
    /// linear layers only, as publications count them.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        let mut shape = input;
        let mut total = 0_u64;
        for (_, child) in self.children() {
            total = total.saturating_add(child.multiply_adds(shape)?);
            shape = child.output_shape(shape)?;
        }
        Ok(total)
    }

    /// The kernel that computes the layer, such as `f32-dw3x3s1-relu6` or `f32-pw`: element type, kind, window, and the
    /// activation fused into it. `None` if it is not one kernel.
    fn kernel(&self) -> Option<String> {
        None
    }

    /// Writes the layer's operators on `input` into a graph, under the name it has in its network, and returns their
    /// output. A layer that does not say how stays a single operator that calls its [`Layer::forward_with`] on one
    /// image at a time, which may allocate.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let [h, w, c] = graph.size(input);
        let [_, h, w, c] = self.output_shape([1, h, w, c])?;
        let layer = self.clone_boxed();
        Ok(graph.opaque(name, self.kind(), input, [h, w, c], move |input, runtime| {
            let output = layer.forward_with(&convert(input)?, runtime)?;
            convert(&output)
        }))
    }

    /// Compiles the layer for inference on inputs `[N, H, W, C]`: batch normalisation folded, weights packed for one
    /// SIMD level, operators fused, memory planned. `f64` weights are rounded to `f32`.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input, or the options ask for what the machine has not.
    fn compile(&self, input: Shape, options: &CompileOptions) -> Result<Engine> {
        self.output_shape(input)?;
        Engine::new(input, options, |graph, input| self.lower(graph, "", input))
    }

    /// Number of trained values: running statistics are not counted.
    fn parameter_count(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, parameter| count += if parameter.role().is_trained() { parameter.len() } else { 0 });
        count
    }
}

/// The count of matches, if there are any.
fn found(operation: &'static str, pattern: &str, count: usize) -> Result<usize> {
    if count == 0 {
        return Err(Error::invalid(
            operation,
            "pattern",
            format_args!("{pattern:?}"),
            "the name of a parameter or layer",
        ));
    }
    Ok(count)
}

/// Whether a gradient changes a parameter of the layer.
fn trains<T: Element>(layer: &dyn Layer<T>) -> bool {
    let mut trains = false;
    layer.visit("", &mut |_, parameter| trains |= parameter.trains());
    trains
}

/// A layer's part of a chain in training: inference, if it is frozen and nothing below it trains.
fn forward_link<T: Element>(layer: &mut dyn Layer<T>, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
    if layer.is_frozen() && !input.needs_gradient() {
        let input = input.into_tensor(tape)?;
        return Ok(Signal::new(layer.forward_with(&input, tape.runtime())?));
    }
    layer.forward_train(input, tape)
}

/// Clones a boxed layer; implemented for every layer that is `Clone`.
pub trait CloneLayer<T> {
    /// A copy of this layer behind a box.
    fn clone_boxed(&self) -> Box<dyn Layer<T>>;
}

impl<T: Element, L: Layer<T> + Clone + 'static> CloneLayer<T> for L {
    fn clone_boxed(&self) -> Box<dyn Layer<T>> {
        Box::new(self.clone())
    }
}

impl<T: Element> Clone for Box<dyn Layer<T>> {
    fn clone(&self) -> Self {
        (**self).clone_boxed()
    }
}

/// The tensor in another element type.
fn convert<T: Element, U: Element>(tensor: &Tensor<T>) -> Result<Tensor<U>> {
    let values = tensor.as_slice().iter().map(|value| U::from_f64(Element::to_f64(*value)));
    Tensor::from_shape_vec(tensor.shape(), values.collect())
}

/// The values rounded to `f32`; themselves, if they are.
fn rounded<T: Element>(values: &[T]) -> Cow<'_, [f32]> {
    T::as_f32(values).map_or_else(|| T::into_f32(values.to_vec()).into(), Cow::Borrowed)
}

/// `prefix.name`, or `name` alone at the root.
#[must_use]
pub fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { String::from(name) } else { alloc::format!("{prefix}.{name}") }
}
