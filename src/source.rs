//! Where weights come from, and every convention that travels with them.
//!
//! Padding, epsilon, momentum, channel rounding, class offset and pixel normalisation of a network must
//! match the framework that trained its weights; mixing them up runs without an error and answers a few
//! per cent worse. One value binds them all.

use crate::shape::Padding;

/// The network families whose published weights this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Architecture {
    /// Howard et al. 2017, arXiv:1704.04861.
    MobileNetV1,
    /// Sandler et al. 2018, arXiv:1801.04381.
    MobileNetV2,
}

/// The framework that trained a network's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WeightSource {
    /// `torchvision.models.mobilenet_v2`; for V1, the same conventions.
    Torchvision,
    /// `timm`'s `mobilenetv1_*` and `mobilenetv2_*`.
    Timm,
    /// `keras.applications`.
    Keras,
    /// TF-slim checkpoints of `tensorflow/models`: HWIO order, class 0 is background.
    #[doc(alias = "slim")]
    TfSlim,
    /// `google/mobilenet_v1_*` and `v2_*` as Hugging Face `transformers` stores them: TF-slim's weights
    /// under other names.
    HuggingFace,
}

/// Batch-normalisation constants of a weight source.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchNormConvention {
    /// Added to the variance before the square root.
    pub epsilon: f64,
    /// Weight of the *new* batch in a running statistic (PyTorch's meaning; Keras' momentum is 1 minus this).
    pub momentum: f64,
    /// Whether the running variance takes the unbiased batch variance, `n / (n - 1)` times the biased one.
    pub unbiased_running_variance: bool,
}

/// How `alpha` times a channel count becomes a whole number; see [`Rounding::scale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Rounding {
    /// To the nearest multiple of `divisor`, never below it nor below 0.9 of the exact value
    /// (`_make_divisible` of TensorFlow and torchvision).
    Divisible {
        /// The multiple; every published network uses 8.
        divisor: usize,
    },
    /// As `Divisible`, after cutting the product to an integer: Keras' MobileNetV2.
    KerasDivisible {
        /// The multiple; every published network uses 8.
        divisor: usize,
    },
    /// Cut to an integer, at least `least`: TF-slim's MobileNetV1 has 8, Keras' has 1.
    Truncate {
        /// The fewest channels a layer may have.
        least: usize,
    },
}

impl Rounding {
    /// Channels of a layer that has `channels` at `alpha` 1. Exact for any product below 2^52.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the float-to-integer cast saturates; cutting is the published rule"
    )]
    pub fn scale(self, channels: usize, alpha: f64) -> usize {
        let exact = channels as f64 * alpha;
        let divisible = |exact: f64, divisor: usize| {
            let divisor = divisor.max(1);
            let rounded = ((exact + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
            if (rounded as f64) < 0.9 * exact { rounded.saturating_add(divisor) } else { rounded }
        };
        match self {
            Self::Divisible { divisor } => divisible(exact, divisor),
            Self::KerasDivisible { divisor } => divisible(exact as usize as f64, divisor),
            Self::Truncate { least } => (exact as usize).max(least),
        }
    }
}

impl WeightSource {
    /// All sources, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Torchvision, Self::Timm, Self::Keras, Self::TfSlim, Self::HuggingFace];

    /// The name commands and messages use: `torchvision`, `timm`, `keras`, `slim`, `huggingface`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Keras => "keras",
            Self::TfSlim => "slim",
            Self::HuggingFace => "huggingface",
        }
    }

    /// Batch-normalisation constants.
    ///
    /// Keras: `applications/mobilenet_v2.py` (momentum 0.999) and the layer's defaults (V1). TF-slim:
    /// `mobilenet_v1_arg_scope` (decay 0.9997), `mobilenet_v2.training_scope` (0.997). PyTorch: layer defaults. The
    /// variance that Keras 3 keeps is biased; TF-slim's fused normalisation and PyTorch's, which Hugging Face uses, keep
    /// the unbiased one (run on 1, 2, 4 and 9: 9.5 in Keras 3.15, 12.67 in TensorFlow 2.21's `fused_batch_norm`).
    #[must_use]
    pub const fn batch_norm(self, architecture: Architecture) -> BatchNormConvention {
        const fn keras(momentum: f64) -> BatchNormConvention {
            BatchNormConvention { epsilon: 1e-3, momentum, unbiased_running_variance: false }
        }
        const fn slim(momentum: f64) -> BatchNormConvention {
            BatchNormConvention { epsilon: 1e-3, momentum, unbiased_running_variance: true }
        }
        match (self, architecture) {
            (Self::Torchvision | Self::Timm, _) => {
                BatchNormConvention { epsilon: 1e-5, momentum: 0.1, unbiased_running_variance: true }
            }
            (Self::Keras, Architecture::MobileNetV1) => keras(0.01),
            (Self::Keras, Architecture::MobileNetV2) => keras(0.001),
            (Self::TfSlim | Self::HuggingFace, Architecture::MobileNetV1) => slim(0.0003),
            (Self::TfSlim | Self::HuggingFace, Architecture::MobileNetV2) => slim(0.003),
        }
    }

    /// Padding of a spatial convolution with this kernel size and stride.
    #[must_use]
    pub const fn padding(self, architecture: Architecture, kernel: usize, stride: usize, is_stem: bool) -> Padding {
        match (self, architecture) {
            (Self::Torchvision | Self::Timm, _) => Padding::Symmetric(kernel.saturating_sub(1) / 2),
            // `ZeroPadding2D(((0, 1), (0, 1)))` before every stride-2 depthwise convolution, whatever the parity.
            (Self::Keras, Architecture::MobileNetV1) if stride > 1 && !is_stem => {
                Padding::Explicit { top: 0, bottom: kernel / 2, left: 0, right: kernel / 2 }
            }
            _ => Padding::Same,
        }
    }

    /// How channel counts are rounded.
    #[must_use]
    pub const fn rounding(self, architecture: Architecture) -> Rounding {
        match (self, architecture) {
            (Self::Keras, Architecture::MobileNetV1) => Rounding::Truncate { least: 1 },
            (Self::TfSlim | Self::HuggingFace, Architecture::MobileNetV1) => Rounding::Truncate { least: 8 },
            (Self::Keras, Architecture::MobileNetV2) => Rounding::KerasDivisible { divisor: 8 },
            _ => Rounding::Divisible { divisor: 8 },
        }
    }

    /// Dropout before the classifier: a drop probability, where TF-slim has `keep_prob`. Hugging Face's
    /// configurations hold the kept share under the name of the dropped one; this is what the training used.
    #[must_use]
    pub const fn dropout(self, architecture: Architecture) -> f64 {
        match (self, architecture) {
            (Self::Timm, _) | (Self::Keras, Architecture::MobileNetV2) => 0.0,
            (Self::Keras | Self::TfSlim | Self::HuggingFace, Architecture::MobileNetV1) => 0.001,
            (Self::Torchvision, _) | (Self::TfSlim | Self::HuggingFace, Architecture::MobileNetV2) => 0.2,
        }
    }

    /// Outputs of the published ImageNet classifier: 1001 where index 0 is background, else 1000.
    #[must_use]
    pub const fn imagenet_classes(self) -> usize {
        1000 + self.class_offset()
    }

    /// Index of the first real class.
    #[must_use]
    pub const fn class_offset(self) -> usize {
        matches!(self, Self::TfSlim | Self::HuggingFace) as usize
    }
}

impl core::fmt::Display for WeightSource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

impl core::str::FromStr for WeightSource {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| {
            crate::Error::invalid(
                "weight source",
                "name",
                name,
                format_args!("one of {}", Self::ALL.map(Self::name).join(", ")),
            )
        })
    }
}
