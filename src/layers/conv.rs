//! Plain convolutions with an optional bias.
//!
//! A convolution with as many groups as input channels is a depthwise one and keeps its weight in that form.

use alloc::string::String;
use alloc::vec;
use core::marker::PhantomData;

use super::filter::{Filter, FilterOptions};
use super::{Activation, Gradient, Initializer, Layer, Parameter, Role, Signal, Tape, dotted, rounded, trains};
use crate::engine::{FilterWeights, Graph, Value};
use crate::ops::Epilogue;
use crate::{Element, Padding, Result, Runtime, Shape, Tensor, Window};

/// Convolution: `[N, H, W, I] -> [N, OH, OW, O]`, with a bias unless told otherwise.
///
/// Parameters: `weight [K, K, I / groups, O]` (`[K, K, I, O / I]` when depthwise), `bias [O]`.
///
/// ```
/// use mobilenet::layers::{Conv2d, Layer};
/// let conv = Conv2d::<f32>::builder(3, 8).kernel_size(3).stride(2).build()?;
/// assert_eq!(conv.output_shape([1, 9, 9, 3])?, [1, 5, 5, 8]);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d<T> {
    pub(super) filter: Filter<T>,
    pub(super) bias: Option<Parameter<T>>,
}

impl<T: Element> Conv2d<T> {
    /// Options for a 1x1 convolution between these channel counts.
    pub fn builder(in_channels: usize, out_channels: usize) -> Conv2dBuilder<T> {
        Conv2dBuilder { filter: FilterOptions::new(in_channels, out_channels), bias: Bias::Zeros, element: PhantomData }
    }

    /// The weight.
    #[must_use]
    pub fn weight(&self) -> &Parameter<T> {
        &self.filter.weight
    }

    /// The bias, if it has one.
    #[must_use]
    pub fn bias(&self) -> Option<&Parameter<T>> {
        self.bias.as_ref()
    }

    /// Kernel, stride, dilation and padding.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.filter.window
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.filter.groups()
    }
}

impl<T: Element> Layer<T> for Conv2d<T> {
    fn kind(&self) -> &'static str {
        "Conv2d"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.filter.output_shape(input)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        let epilogue = Epilogue { bias: self.bias.as_ref().map(Parameter::as_slice), ..Epilogue::default() };
        self.filter.forward(input, self.filter.weight.as_slice(), epilogue, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let trains = trains(self) || input.needs_gradient();
        let output = self.filter.forward_train(&input, self.bias.as_ref().map(Parameter::as_slice), None, tape)?;
        if trains {
            tape.push(input);
        }
        Ok(Signal::output(output, trains))
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let input = tape.pop()?;
        self.filter.backward(self.bias.as_mut(), input, d_output, tape)
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let weights = || {
            let zeros = || vec![0.0; self.filter.out_channels].into();
            let bias = self.bias.as_ref().map_or_else(zeros, |b| rounded(b.as_slice()));
            FilterWeights { weight: rounded(self.filter.weight.as_slice()), scale: None, bias }
        };
        graph.convolution(name, input, self.filter.lower(Activation::None, weights), None)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &self.filter.weight);
        if let Some(bias) = &self.bias {
            visitor(dotted(prefix, "bias"), bias);
        }
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &mut self.filter.weight);
        if let Some(bias) = &mut self.bias {
            visitor(dotted(prefix, "bias"), bias);
        }
    }

    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        self.filter.multiply_adds(input)
    }

    fn kernel(&self) -> Option<String> {
        Some(self.filter.kernel(Activation::None))
    }
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Bias {
    Zeros,
    Absent,
}

impl Bias {
    pub(super) fn build<T: Element>(self, outputs: usize) -> Option<Parameter<T>> {
        (self == Self::Zeros).then(|| Parameter::filled(Role::Bias, &[outputs], T::zero()))
    }
}

/// Options of a [`Conv2d`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct Conv2dBuilder<T> {
    filter: FilterOptions,
    bias: Bias,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> Conv2dBuilder<T> {
    setters! {
        /// Groups that channels are split into, 1 by default; as many as input channels make it depthwise.
        groups: usize => filter.groups;
        /// Rows and columns of taps, 1 by default.
        kernel_size: usize => filter.kernel_size;
        /// Step between outputs, 1 by default.
        stride: usize => filter.stride;
        /// Step between taps, 1 by default.
        #[doc(alias = "rate")]
        dilation: usize => filter.dilation;
        /// Initial weights, torchvision's by default.
        initializer: Initializer => filter.initializer;
        /// Seed of the initial weights, 0 by default.
        seed: u64 => filter.seed;
    }

    /// Zeros around the map, `(kernel_size - 1) / 2 * dilation` on each side by default.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.filter.padding = Some(padding);
        self
    }

    /// Leaves the bias out.
    pub fn without_bias(mut self) -> Self {
        self.bias = Bias::Absent;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd, or the groups do not divide both channel counts.
    pub fn build(self) -> Result<Conv2d<T>> {
        let filter = self.filter.build("conv2d")?;
        Ok(Conv2d { filter, bias: self.bias.build(self.filter.out_channels) })
    }
}
