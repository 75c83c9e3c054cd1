//! MobileNetV1: a stem and thirteen depthwise-separable blocks.
//!
//! Howard et al. 2017, arXiv:1704.04861, table 1, with ReLU6 and stride 1 in the last block, as TF-slim and Keras
//! have them (the paper's "s2" there contradicts its own output size).

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::network::network_type;
use super::options::{NetworkOptions, Trunk, network_setters};
use super::{Head, Network};
use crate::layers::{ConvBnRelu, DepthwiseSeparable, Initializer, Layer};
use crate::source::Rounding;
use crate::{Architecture, Element, Result, Runtime, Shape, Tensor, WeightSource};

const OPERATION: &str = "mobilenet_v1";

/// Channels of the stem at alpha 1.
const STEM: usize = 32;

/// Depthwise-separable blocks of one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SeparableStage {
    /// Rows and columns of the depthwise taps, odd.
    pub kernel_size: usize,
    /// Output channels at alpha 1.
    pub width: usize,
    /// Number of blocks.
    pub repeats: usize,
    /// Stride of the first block; the others have 1.
    pub stride: usize,
}

/// The published stages.
pub const MOBILENET_V1_STAGES: [SeparableStage; 5] = {
    const fn stage(width: usize, repeats: usize, stride: usize) -> SeparableStage {
        SeparableStage { kernel_size: 3, width, repeats, stride }
    }
    [stage(64, 1, 1), stage(128, 2, 2), stage(256, 2, 2), stage(512, 6, 2), stage(1024, 2, 2)]
};

network_type! {
    /// MobileNetV1; used through the [`Network`] it lends.
    ///
    /// ```
    /// use mobilenet::{Layer, MobileNetV1, Tensor};
    /// let net = MobileNetV1::<f32>::builder().alpha(0.25).classes(10).seed(7).build()?;
    /// let logits = net.forward(&Tensor::zeros([2, 32, 32, 3])?)?;
    /// assert_eq!(logits.shape(), [2, 1, 1, 10]);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    MobileNetV1
}

impl<T: Element> MobileNetV1<T> {
    /// Options for the published network at alpha 1 as TF-slim builds it, with 1000 classes.
    pub fn builder() -> MobileNetV1Builder<T> {
        MobileNetV1Builder::default()
    }
}

/// Options of a [`MobileNetV1`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct MobileNetV1Builder<T> {
    options: NetworkOptions,
    stages: Vec<SeparableStage>,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T> Default for MobileNetV1Builder<T> {
    fn default() -> Self {
        let options = NetworkOptions::new(WeightSource::TfSlim);
        Self { options, stages: MOBILENET_V1_STAGES.into(), element: PhantomData }
    }
}

impl<T: Element> MobileNetV1Builder<T> {
    network_setters!();

    /// The blocks between stem and head, [`MOBILENET_V1_STAGES`] by default.
    pub fn stages(mut self, stages: impl Into<Vec<SeparableStage>>) -> Self {
        self.stages = stages.into();
        self
    }

    /// The network.
    ///
    /// # Errors
    ///
    /// If alpha is not positive and finite or makes a layer absurdly wide, a size is zero, a kernel even, or the
    /// output stride or dropout rate not allowed.
    pub fn build(self) -> Result<MobileNetV1<T>> {
        let mut trunk = Trunk::new(OPERATION, Architecture::MobileNetV1, &self.options)?;
        let place = trunk.place(3, 2)?;
        let width = trunk.width(STEM, trunk.rounding, 0.0)?;
        let stem = ConvBnRelu::builder(trunk.channels, width)
            .kernel_size(3)
            .stride(place.stride)
            .padding(place.padding)
            .batch_norm(trunk.batch_norm)
            .initializer(trunk.initializer)
            .seed(place.seed)
            .build()?;
        trunk.push(stem, width);
        for stage in &self.stages {
            let width = trunk.width(stage.width, trunk.rounding, 0.0)?;
            for repeat in 0..trunk.check_repeats(stage.repeats)? {
                let place = trunk.place(stage.kernel_size, if repeat == 0 { stage.stride } else { 1 })?;
                let block = DepthwiseSeparable::builder(trunk.channels, width)
                    .kernel_size(stage.kernel_size)
                    .stride(place.stride)
                    .dilation(place.dilation)
                    .padding(place.padding)
                    .batch_norm(trunk.batch_norm)
                    .initializer(trunk.initializer)
                    .seed(place.seed)
                    .build()?;
                trunk.push(block, width);
            }
        }
        trunk.finish().map(MobileNetV1)
    }
}
