//! What the blocks of MobileNetV1 and V2 have in common: options of the depthwise convolution in their middle, and
//! constants of all their parts.

use super::filter::{check_range, window};
use super::norm::default_convention;
use super::{Activation, ConvBnRelu, ConvBnReluBuilder, Initializer, derive_seed};
use crate::source::BatchNormConvention;
use crate::{Element, Error, Padding, Result, Window};

/// Options that both builders share.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct BlockOptions {
    pub(super) kernel_size: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) padding: Option<Padding>,
    pub(super) activation: Activation,
    pub(super) batch_norm: BatchNormConvention,
    pub(super) initializer: Initializer,
    pub(super) seed: u64,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            kernel_size: 3,
            stride: 1,
            dilation: 1,
            padding: None,
            activation: Activation::default(),
            batch_norm: default_convention(),
            initializer: Initializer::default(),
            seed: 0,
        }
    }
}

impl BlockOptions {
    /// The window of the depthwise convolution. An even kernel has no centre, and symmetric padding would shrink
    /// the map.
    pub(super) fn window(&self, operation: &'static str) -> Result<Window> {
        check_range(operation, "kernel size", self.kernel_size, usize::MAX)?;
        if self.kernel_size.is_multiple_of(2) {
            return Err(Error::invalid(operation, "kernel size", self.kernel_size, "an odd number"));
        }
        window(operation, self.kernel_size, self.stride, self.dilation, self.padding)
    }

    /// Part `index` of the block, 1x1 until told otherwise.
    pub(super) fn pointwise<T: Element>(&self, index: u64, inputs: usize, outputs: usize) -> ConvBnReluBuilder<T> {
        ConvBnRelu::builder(inputs, outputs)
            .activation(self.activation)
            .batch_norm(self.batch_norm)
            .initializer(self.initializer)
            .seed(derive_seed(self.seed, index))
    }

    /// Part `index` of the block, depthwise with the block's window.
    pub(super) fn depthwise<T: Element>(&self, index: u64, inputs: usize, outputs: usize) -> ConvBnReluBuilder<T> {
        let builder = self.pointwise(index, inputs, outputs).groups(inputs);
        let builder = builder.kernel_size(self.kernel_size).stride(self.stride).dilation(self.dilation);
        match self.padding {
            Some(padding) => builder.padding(padding),
            None => builder,
        }
    }
}
