//! Depthwise convolution with a channel multiplier.
//!
//! A [`Conv2d`] with as many groups as channels, named and counted the way papers and Keras do it.

use alloc::string::String;
use core::marker::PhantomData;

use super::conv::{Bias, Conv2d};
use super::filter::{FilterOptions, MAX_CHANNELS, check_range};
use super::{Gradient, Initializer, Layer, Parameter, Signal, Tape};
use crate::engine::{Graph, Value};
use crate::{Element, Padding, Result, Runtime, Shape, Tensor};

/// Depthwise convolution: `[N, H, W, C] -> [N, OH, OW, C * M]`; output channel `c * M + m` reads input channel `c`.
///
/// Parameters: `weight [K, K, C, M]`, `bias [C * M]`.
///
/// ```
/// use mobilenet::layers::{DepthwiseConv2d, Layer};
/// let conv = DepthwiseConv2d::<f32>::builder(8).channel_multiplier(2).build()?;
/// assert_eq!(conv.output_shape([1, 9, 9, 8])?, [1, 9, 9, 16]);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DepthwiseConv2d<T>(Conv2d<T>);

impl<T: Element> DepthwiseConv2d<T> {
    /// Options for a 3x3 depthwise convolution over this many channels.
    pub fn builder(channels: usize) -> DepthwiseConv2dBuilder<T> {
        let filter = FilterOptions { groups: channels, kernel_size: 3, ..FilterOptions::new(channels, channels) };
        DepthwiseConv2dBuilder { channel_multiplier: 1, filter, bias: Bias::Zeros, element: PhantomData }
    }

    /// The same as a grouped convolution.
    #[must_use]
    pub fn as_conv2d(&self) -> &Conv2d<T> {
        &self.0
    }
}

impl<T: Element> Layer<T> for DepthwiseConv2d<T> {
    fn kind(&self) -> &'static str {
        "DepthwiseConv2d"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.0.output_shape(input)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        self.0.forward_with(input, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        self.0.forward_train(input, tape)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        self.0.backward(d_output, tape)
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        self.0.lower(graph, name, input)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        self.0.visit(prefix, visitor);
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        self.0.visit_mut(prefix, visitor);
    }

    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        self.0.multiply_adds(input)
    }

    fn kernel(&self) -> Option<String> {
        self.0.kernel()
    }
}

/// Options of a [`DepthwiseConv2d`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct DepthwiseConv2dBuilder<T> {
    channel_multiplier: usize,
    filter: FilterOptions,
    bias: Bias,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> DepthwiseConv2dBuilder<T> {
    setters! {
        /// Output channels per input channel, 1 by default (Keras' `depth_multiplier` of a depthwise layer).
        #[doc(alias = "depth_multiplier")]
        channel_multiplier: usize => channel_multiplier;
        /// Rows and columns of taps, 3 by default.
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
    /// If a size is zero or absurd.
    pub fn build(self) -> Result<DepthwiseConv2d<T>> {
        const OPERATION: &str = "depthwise_conv2d";
        check_range(OPERATION, "channel multiplier", self.channel_multiplier, MAX_CHANNELS)?;
        let out_channels = self.filter.in_channels.saturating_mul(self.channel_multiplier);
        let filter = FilterOptions { out_channels, ..self.filter }.build(OPERATION)?;
        Ok(DepthwiseConv2d(Conv2d { filter, bias: self.bias.build(out_channels) }))
    }
}
