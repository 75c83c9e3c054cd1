//! MobileNetV2: a stem, seventeen inverted residuals and a last pointwise convolution.
//!
//! Sandler et al. 2018, arXiv:1801.04381, table 2.

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::network::network_type;
use super::options::{NetworkOptions, Place, Trunk, network_setters};
use super::{Head, Network};
use crate::layers::{ConvBnRelu, ConvBnReluBuilder, Initializer, InvertedResidual, Layer};
use crate::source::Rounding;
use crate::{Architecture, Element, Result, Runtime, Shape, Tensor, WeightSource};

const OPERATION: &str = "mobilenet_v2";

/// Channels of the stem at alpha 1.
const STEM: usize = 32;

/// Channels of the last convolution at alpha 1 and below: it does not shrink (section 6.1; TF-slim's published
/// checkpoints have `finegrain_classification_mode` for it).
const LAST: usize = 1280;

/// Inverted residuals of one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BottleneckStage {
    /// Rows and columns of the depthwise taps, odd.
    pub kernel_size: usize,
    /// Depthwise channels per input channel; 1 leaves the expansion out.
    pub expansion: usize,
    /// Output channels at alpha 1.
    pub width: usize,
    /// Number of blocks.
    pub repeats: usize,
    /// Stride of the first block; the others have 1.
    pub stride: usize,
}

/// The published stages.
pub const MOBILENET_V2_STAGES: [BottleneckStage; 7] = {
    const fn stage(expansion: usize, width: usize, repeats: usize, stride: usize) -> BottleneckStage {
        BottleneckStage { kernel_size: 3, expansion, width, repeats, stride }
    }
    [
        stage(1, 16, 1, 1),
        stage(6, 24, 2, 2),
        stage(6, 32, 3, 2),
        stage(6, 64, 4, 2),
        stage(6, 96, 3, 1),
        stage(6, 160, 3, 2),
        stage(6, 320, 1, 1),
    ]
};

network_type! {
    /// MobileNetV2; used through the [`Network`] it lends.
    ///
    /// ```
    /// use mobilenet::{Layer, MobileNetV2, Tensor};
    /// let net = MobileNetV2::<f32>::builder().alpha(0.35).classes(10).seed(7).build()?;
    /// let logits = net.forward(&Tensor::zeros([2, 32, 32, 3])?)?;
    /// assert_eq!(logits.rows().dim(), (2, 10));
    /// println!("{}", net.summary([1, 224, 224, 3])?);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    MobileNetV2
}

impl<T: Element> MobileNetV2<T> {
    /// Options for the published network at alpha 1 as torchvision builds it.
    pub fn builder() -> MobileNetV2Builder<T> {
        MobileNetV2Builder::default()
    }
}

/// Options of a [`MobileNetV2`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct MobileNetV2Builder<T> {
    options: NetworkOptions,
    stages: Vec<BottleneckStage>,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T> Default for MobileNetV2Builder<T> {
    fn default() -> Self {
        let options = NetworkOptions::new(WeightSource::Torchvision);
        Self { options, stages: MOBILENET_V2_STAGES.into(), element: PhantomData }
    }
}

impl<T: Element> MobileNetV2Builder<T> {
    network_setters!();

    /// The blocks between stem and last convolution, [`MOBILENET_V2_STAGES`] by default.
    pub fn stages(mut self, stages: impl Into<Vec<BottleneckStage>>) -> Self {
        self.stages = stages.into();
        self
    }

    /// The network.
    ///
    /// # Errors
    ///
    /// If alpha is not positive and finite or makes a layer absurdly wide, a size is zero, a kernel even, or the
    /// output stride or dropout rate not allowed.
    pub fn build(self) -> Result<MobileNetV2<T>> {
        let mut trunk = Trunk::new(OPERATION, Architecture::MobileNetV2, &self.options)?;
        let convolution = |trunk: &Trunk<'_, T>, place: &Place, width: usize| -> ConvBnReluBuilder<T> {
            ConvBnRelu::builder(trunk.channels, width)
                .stride(place.stride)
                .padding(place.padding)
                .batch_norm(trunk.batch_norm)
                .initializer(trunk.initializer)
                .seed(place.seed)
        };
        // Keras cuts the products of its blocks to integers, not those of its plain convolutions.
        let plain = match trunk.rounding {
            Rounding::KerasDivisible { divisor } => Rounding::Divisible { divisor },
            rounding => rounding,
        };

        let place = trunk.place(3, 2)?;
        let width = trunk.width(STEM, plain, 0.0)?;
        trunk.push(convolution(&trunk, &place, width).kernel_size(3).build()?, width);
        for stage in &self.stages {
            let width = trunk.width(stage.width, trunk.rounding, 0.0)?;
            for repeat in 0..trunk.check_repeats(stage.repeats)? {
                let place = trunk.place(stage.kernel_size, if repeat == 0 { stage.stride } else { 1 })?;
                let block = InvertedResidual::builder(trunk.channels, width)
                    .expand_ratio(stage.expansion)
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
        let place = trunk.place(1, 1)?;
        let width = trunk.width(LAST, plain, 1.0)?;
        trunk.push(convolution(&trunk, &place, width).build()?, width);
        trunk.finish().map(MobileNetV2)
    }
}
