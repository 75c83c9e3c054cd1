//! Options that both builders share, and the growing network they steer.
//!
//! `Trunk` knows the source's rules; a builder only walks its stage table.

use alloc::vec::Vec;

use super::network::classifier;
use super::{Head, Network};
use crate::layers::{
    Dropout, GlobalAveragePool, GlobalMaxPool, Initializer, Layer, MAX_CHANNELS, Sequential, check_range, derive_seed,
};
use crate::source::{BatchNormConvention, Rounding};
use crate::{Architecture, Element, Error, Padding, Result, WeightSource};

/// Most repeats of a block in a stage; the published tables have at most 6.
const MAX_REPEATS: usize = 256;

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct NetworkOptions {
    pub(super) alpha: f64,
    pub(super) source: WeightSource,
    pub(super) rounding: Option<Rounding>,
    pub(super) classes: usize,
    pub(super) in_channels: usize,
    pub(super) head: Head,
    pub(super) dropout: Option<f64>,
    pub(super) output_stride: Option<usize>,
    pub(super) initializer: Option<Initializer>,
    pub(super) seed: u64,
}

impl NetworkOptions {
    pub(super) fn new(source: WeightSource) -> Self {
        Self {
            alpha: 1.0,
            source,
            rounding: None,
            classes: 1000,
            in_channels: 3,
            head: Head::default(),
            dropout: None,
            output_stride: None,
            initializer: None,
            seed: 0,
        }
    }
}

/// The setters of [`NetworkOptions`], for a builder with such a field `options`.
macro_rules! network_setters {
    () => {
        crate::layers::setters! {
            /// Width multiplier, 1 by default: every layer has `alpha` times as many channels, rounded as the source
            /// does it. TF-slim calls it `depth_multiplier`; that is not Keras' `depth_multiplier`, which is the
            /// channel multiplier of depthwise layers. The paper's resolution multiplier is the input's size.
            #[doc(alias = "width_mult")]
            #[doc(alias = "width_multiplier")]
            #[doc(alias = "depth_multiplier")]
            alpha: f64 => options.alpha;
            /// The framework whose conventions to follow: padding, epsilon, momentum, rounding of widths, dropout
            /// and initialiser. Must be the source of the weights that will be loaded.
            source: WeightSource => options.source;
            /// Outputs of the classifier, 1000 by default; published TF-slim weights have 1001 (see
            /// [`WeightSource::imagenet_classes`]).
            #[doc(alias = "num_classes")]
            classes: usize => options.classes;
            /// Channels of the images, 3 by default.
            in_channels: usize => options.in_channels;
            /// What follows the features, a classifier by default.
            #[doc(alias = "include_top")]
            head: Head => options.head;
            /// Seed of the initial weights, 0 by default.
            seed: u64 => options.seed;
        }

        /// How widths are rounded, in place of the source's rule.
        #[doc(alias = "round_nearest")]
        pub fn rounding(mut self, rounding: Rounding) -> Self {
            self.options.rounding = Some(rounding);
            self
        }

        /// Probability that training drops a feature before the classifier, in place of the source's.
        pub fn dropout(mut self, rate: f64) -> Self {
            self.options.dropout = Some(rate);
            self
        }

        /// Input pixels per pixel of the last feature map: 8, 16 or 32. Strides beyond it become dilation, so that
        /// trained weights keep their meaning (TF-slim's rule). Without it, what the stages say.
        pub fn output_stride(mut self, output_stride: usize) -> Self {
            self.options.output_stride = Some(output_stride);
            self
        }

        /// Initial weights, in place of the source's. [`Initializer::Zeros`] costs nothing: for weights that will
        /// be loaded.
        pub fn initializer(mut self, initializer: Initializer) -> Self {
            self.options.initializer = Some(initializer);
            self
        }
    };
}
pub(super) use network_setters;

/// A network while its blocks are added.
#[derive(Debug)]
pub(super) struct Trunk<'a, T: Element> {
    operation: &'static str,
    options: &'a NetworkOptions,
    architecture: Architecture,
    pub(super) rounding: Rounding,
    pub(super) batch_norm: BatchNormConvention,
    pub(super) initializer: Initializer,
    /// Channels of the last block's output.
    pub(super) channels: usize,
    features: Sequential<T>,
    strides: Vec<usize>,
    dilation: usize,
}

/// Where the next block goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) padding: Padding,
    pub(super) seed: u64,
}

impl<'a, T: Element> Trunk<'a, T> {
    pub(super) fn new(
        operation: &'static str,
        architecture: Architecture,
        options: &'a NetworkOptions,
    ) -> Result<Self> {
        let &NetworkOptions { alpha, source, in_channels, classes, output_stride, .. } = options;
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(Error::invalid(operation, "alpha", alpha, "a positive finite number"));
        }
        check_range(operation, "input channels", in_channels, MAX_CHANNELS)?;
        check_range(operation, "classes", classes, MAX_CHANNELS)?;
        if let Some(stride) = output_stride.filter(|stride| ![8, 16, 32].contains(stride)) {
            return Err(Error::invalid(operation, "output stride", stride, "8, 16 or 32"));
        }
        Ok(Self {
            operation,
            options,
            architecture,
            rounding: options.rounding.unwrap_or(source.rounding(architecture)),
            batch_norm: source.batch_norm(architecture),
            initializer: options.initializer.unwrap_or(source.into()),
            channels: in_channels,
            features: Sequential::new(),
            strides: Vec::new(),
            dilation: 1,
        })
    }

    /// `channels` times alpha, or times 1 if alpha is less and the layer does not shrink.
    pub(super) fn width(&self, channels: usize, rounding: Rounding, least_alpha: f64) -> Result<usize> {
        check_range(self.operation, "width", channels, MAX_CHANNELS)?;
        let alpha = self.options.alpha.max(least_alpha);
        // Checked before rounding, which adds to the product.
        if channels as f64 * alpha > MAX_CHANNELS as f64 {
            let expected = format_args!("at most {MAX_CHANNELS} channels in the layer of width {channels}");
            return Err(Error::invalid(self.operation, "alpha", alpha, expected));
        }
        check_range(self.operation, "scaled width", rounding.scale(channels, alpha), MAX_CHANNELS)
    }

    pub(super) fn check_repeats(&self, repeats: usize) -> Result<usize> {
        check_range(self.operation, "repeats", repeats, MAX_REPEATS)
    }

    /// Stride, dilation and padding of the next block. A stride beyond the wanted output stride turns into the
    /// dilation of the blocks after it.
    pub(super) fn place(&mut self, kernel_size: usize, stride: usize) -> Result<Place> {
        check_range(self.operation, "kernel size", kernel_size, MAX_CHANNELS)?;
        check_range(self.operation, "stride", stride, MAX_CHANNELS)?;
        let reached = self.strides.last().map_or(stride, |&reached| reached.saturating_mul(stride));
        let dilation = self.dilation;
        let stride = if self.options.output_stride.is_some_and(|limit| reached > limit) {
            self.dilation = dilation.saturating_mul(stride);
            self.strides.push(self.strides.last().copied().unwrap_or(1));
            1
        } else {
            self.strides.push(reached);
            stride
        };
        let index = self.features.len();
        let padding = match self.options.source.padding(self.architecture, kernel_size, stride, index == 0) {
            Padding::Symmetric(zeros) => Padding::Symmetric(zeros.saturating_mul(dilation)),
            padding => padding,
        };
        Ok(Place { stride, dilation, padding, seed: derive_seed(self.options.seed, index as u64) })
    }

    /// Adds the block that was given the last place.
    pub(super) fn push(&mut self, layer: impl Layer<T> + 'static, channels: usize) {
        self.features = core::mem::take(&mut self.features).push(layer);
        self.channels = channels;
    }

    /// Adds the head.
    pub(super) fn finish(self) -> Result<Network<T>> {
        let Self { options, architecture, initializer, channels, features, strides, .. } = self;
        let source = options.source;
        let head = match options.head {
            Head::FeatureMap => Sequential::new(),
            Head::AveragePool => Sequential::new().push_named("pool", GlobalAveragePool)?,
            Head::MaxPool => Sequential::new().push_named("pool", GlobalMaxPool)?,
            Head::Classifier => {
                let dropout = Dropout::new(options.dropout.unwrap_or(source.dropout(architecture)))?;
                let classifier = classifier([channels, options.classes], initializer, options.seed, features.len())?;
                Sequential::new()
                    .push_named("pool", GlobalAveragePool)?
                    .push_named("dropout", dropout)?
                    .push_named("classifier", classifier)?
            }
        };
        Ok(Network { architecture, source, features, strides, head })
    }
}
