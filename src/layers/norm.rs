//! Batch normalisation as a layer.
//!
//! At inference it is one multiplication and one addition per element; convolutions fold it away.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::filter::{MAX_CHANNELS, check_range};
use super::{Layer, Parameter, Role, dotted};
use crate::engine::{Filter, Graph, Value};
use crate::kernels::Clamp;
use crate::source::BatchNormConvention;
use crate::{Architecture, Element, Error, Padding, Result, Runtime, Shape, Tensor, WeightSource, Window, ops};

/// Batch normalisation (Ioffe & Szegedy 2015) per channel; its inference form uses the running statistics:
/// `y = (x - running_mean) / sqrt(running_var + epsilon) * weight + bias`.
///
/// Parameters, each `[C]`: `weight`, `bias`, `running_mean`, `running_var`.
///
/// ```
/// use mobilenet::layers::{BatchNorm2d, Layer};
/// use mobilenet::{Tensor, WeightSource, Architecture};
/// let keras = WeightSource::Keras.batch_norm(Architecture::MobileNetV2);
/// let norm = BatchNorm2d::builder(2).convention(keras).build()?;
/// let output = norm.forward(&Tensor::from_slice([1, 1, 1, 2], &[1.0_f64, -2.0])?)?;
/// assert!((output.as_slice()[1] + 2.0 / 1.001_f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm2d<T> {
    weight: Parameter<T>,
    bias: Parameter<T>,
    running_mean: Parameter<T>,
    running_var: Parameter<T>,
    convention: BatchNormConvention,
}

impl<T: Element> BatchNorm2d<T> {
    /// Options for this many channels.
    pub fn builder(channels: usize) -> BatchNorm2dBuilder<T> {
        BatchNorm2dBuilder { channels, convention: default_convention(), element: PhantomData }
    }

    /// Epsilon and how running statistics are updated.
    #[must_use]
    pub fn convention(&self) -> BatchNormConvention {
        self.convention
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Its inference form `y = x * scale + shift`, as `(scale, shift)`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the four parameters have one length by construction")]
    pub fn fold(&self) -> (Vec<T>, Vec<T>) {
        let Self { weight, bias, running_mean, running_var, convention } = self;
        let [weight, bias, mean, var] = [weight, bias, running_mean, running_var].map(Parameter::as_slice);
        ops::fold_batch_norm(weight, bias, mean, var, convention.epsilon).expect("one length")
    }
}

/// PyTorch's.
pub(super) const fn default_convention() -> BatchNormConvention {
    WeightSource::Torchvision.batch_norm(Architecture::MobileNetV2)
}

impl<T: Element> Layer<T> for BatchNorm2d<T> {
    fn kind(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        let channels = self.channels();
        if input[3] != channels {
            return Err(Error::shape("batch_norm", "input", &input, format_args!("[N, H, W, {channels}]")));
        }
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
        self.output_shape(input.shape())?;
        let (scale, shift) = self.fold();
        ops::batch_norm(input.clone(), &scale, &shift)
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let channels = self.channels();
        let weights = || {
            let (scale, shift) = self.fold();
            [scale, shift].map(|values| T::into_f32(values).into())
        };
        let filter = Filter {
            window: Window::new(1, Padding::VALID),
            channels: [channels; 2],
            groups: channels,
            weights: Box::new(weights),
            clamp: Clamp::none(),
        };
        graph.convolution(name, input, filter, None)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &self.weight);
        visitor(dotted(prefix, "bias"), &self.bias);
        visitor(dotted(prefix, "running_mean"), &self.running_mean);
        visitor(dotted(prefix, "running_var"), &self.running_var);
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &mut self.weight);
        visitor(dotted(prefix, "bias"), &mut self.bias);
        visitor(dotted(prefix, "running_mean"), &mut self.running_mean);
        visitor(dotted(prefix, "running_var"), &mut self.running_var);
    }
}

/// Options of a [`BatchNorm2d`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct BatchNorm2dBuilder<T> {
    channels: usize,
    convention: BatchNormConvention,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> BatchNorm2dBuilder<T> {
    setters! {
        /// All constants of a weight source at once, PyTorch's by default.
        convention: BatchNormConvention => convention;
        /// Added to the variance before the square root.
        #[doc(alias = "eps")]
        epsilon: f64 => convention.epsilon;
        /// Weight of the new batch in a running statistic: 1 minus Keras' momentum.
        momentum: f64 => convention.momentum;
    }

    /// The layer: the identity but for epsilon.
    ///
    /// # Errors
    ///
    /// If there are no channels or too many, epsilon is not a positive finite number or momentum not in `[0, 1]`.
    pub fn build(self) -> Result<BatchNorm2d<T>> {
        const OPERATION: &str = "batch_norm";
        let Self { channels, convention, .. } = self;
        check_range(OPERATION, "channels", channels, MAX_CHANNELS)?;
        if !(convention.epsilon > 0.0 && convention.epsilon.is_finite()) {
            return Err(Error::invalid(OPERATION, "epsilon", convention.epsilon, "a positive finite number"));
        }
        if !(0.0..=1.0).contains(&convention.momentum) {
            return Err(Error::invalid(OPERATION, "momentum", convention.momentum, "0 to 1"));
        }
        let filled = |role, value| Parameter::filled(role, &[channels], value);
        Ok(BatchNorm2d {
            weight: filled(Role::NormScale, T::one()),
            bias: filled(Role::NormShift, T::zero()),
            running_mean: filled(Role::RunningStatistic, T::zero()),
            running_var: filled(Role::RunningStatistic, T::one()),
            convention,
        })
    }
}
