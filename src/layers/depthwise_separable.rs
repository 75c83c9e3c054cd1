//! The block of MobileNetV1.

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::block::BlockOptions;
use super::filter::{MAX_CHANNELS, check_range};
use super::{Activation, ConvBnRelu, Gradient, Initializer, Layer, Signal, Tape, dotted, forward_link};
use crate::engine::{Graph, Value};
use crate::source::BatchNormConvention;
use crate::{Element, Padding, Result, Runtime, Shape, Tensor};

/// Depthwise-separable convolution (Howard et al. 2017, section 3.1): a depthwise [`ConvBnRelu`], then a pointwise
/// one; `[N, H, W, I] -> [N, OH, OW, O]`.
///
/// Parameters: `depthwise.*`, `pointwise.*`, each as in [`ConvBnRelu`].
///
/// ```
/// use mobilenet::layers::{DepthwiseSeparable, Layer};
/// let block = DepthwiseSeparable::<f32>::builder(32, 64).build()?;
/// assert_eq!(block.multiply_adds([1, 112, 112, 32])?, 3_612_672 + 25_690_112);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "SeparableConv2d")]
pub struct DepthwiseSeparable<T> {
    depthwise: ConvBnRelu<T>,
    pointwise: ConvBnRelu<T>,
}

impl<T: Element> DepthwiseSeparable<T> {
    /// Options for a 3x3 block between these channel counts.
    pub fn builder(in_channels: usize, out_channels: usize) -> DepthwiseSeparableBuilder<T> {
        let block = BlockOptions::default();
        DepthwiseSeparableBuilder { in_channels, out_channels, channel_multiplier: 1, block, element: PhantomData }
    }

    /// The depthwise part.
    #[must_use]
    pub fn depthwise(&self) -> &ConvBnRelu<T> {
        &self.depthwise
    }

    /// The pointwise part.
    #[must_use]
    pub fn pointwise(&self) -> &ConvBnRelu<T> {
        &self.pointwise
    }
}

impl<T: Element> Layer<T> for DepthwiseSeparable<T> {
    fn kind(&self) -> &'static str {
        "DepthwiseSeparable"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.pointwise.output_shape(self.depthwise.output_shape(input)?)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        self.pointwise.forward_with(&self.depthwise.forward_with(input, runtime)?, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let filtered = forward_link(&mut self.depthwise, input, tape)?;
        forward_link(&mut self.pointwise, filtered, tape)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        match self.pointwise.backward(d_output, tape)? {
            Some(gradient) => self.depthwise.backward(gradient, tape),
            None => Ok(None),
        }
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let filtered = self.depthwise.lower(graph, &dotted(name, "depthwise"), input)?;
        self.pointwise.lower(graph, &dotted(name, "pointwise"), filtered)
    }

    fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
        Vec::from([("depthwise".into(), &self.depthwise as _), ("pointwise".into(), &self.pointwise as _)])
    }

    fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        Vec::from([("depthwise".into(), &mut self.depthwise as _), ("pointwise".into(), &mut self.pointwise as _)])
    }
}

/// Options of a [`DepthwiseSeparable`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct DepthwiseSeparableBuilder<T> {
    in_channels: usize,
    out_channels: usize,
    channel_multiplier: usize,
    block: BlockOptions,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> DepthwiseSeparableBuilder<T> {
    setters! {
        /// Outputs of the depthwise part per input channel, 1 by default.
        #[doc(alias = "depth_multiplier")]
        channel_multiplier: usize => channel_multiplier;
        /// Rows and columns of the depthwise taps, odd, 3 by default.
        kernel_size: usize => block.kernel_size;
        /// Step between outputs, 1 by default.
        stride: usize => block.stride;
        /// Step between depthwise taps, 1 by default.
        #[doc(alias = "rate")]
        dilation: usize => block.dilation;
        /// What follows each normalisation, ReLU6 by default.
        activation: Activation => block.activation;
        /// Constants of the normalisations, PyTorch's by default.
        batch_norm: BatchNormConvention => block.batch_norm;
        /// Initial weights, torchvision's by default.
        initializer: Initializer => block.initializer;
        /// Seed of the initial weights, 0 by default.
        seed: u64 => block.seed;
    }

    /// Zeros around the map, `(kernel_size - 1) / 2 * dilation` on each side by default.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.block.padding = Some(padding);
        self
    }

    /// The block.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd, or the kernel even.
    pub fn build(self) -> Result<DepthwiseSeparable<T>> {
        const OPERATION: &str = "depthwise_separable";
        let Self { in_channels, out_channels, channel_multiplier, block, .. } = self;
        block.window(OPERATION)?;
        check_range(OPERATION, "input channels", in_channels, MAX_CHANNELS)?;
        check_range(OPERATION, "output channels", out_channels, MAX_CHANNELS)?;
        check_range(OPERATION, "channel multiplier", channel_multiplier, MAX_CHANNELS / in_channels)?;
        let middle = in_channels * channel_multiplier;
        Ok(DepthwiseSeparable {
            depthwise: block.depthwise(0, in_channels, middle).build()?,
            pointwise: block.pointwise(1, middle, out_channels).build()?,
        })
    }
}
