//! The preprocessing each weight source was evaluated with.
//!
//! One function, one table: where a number comes from stands beside it.

use super::{Filter, Preprocess, Resize};
use crate::{Architecture, WeightSource};

/// Mean and standard deviation of ImageNet's training pixels: `torchvision/transforms/_presets.py`,
/// `timm/data/constants.py` (`IMAGENET_DEFAULT_MEAN`, `_STD`).
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// From 0..1 to -1..1: Inception's normalisation. `(x - 0.5) * 2` of TF-slim and `x / 127.5 - 1` of Keras (not
/// `/ 128`: keras-team/keras-applications#65) are the same map.
const INCEPTION: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

impl Preprocess {
    /// What the published ImageNet weights of a source expect, at 224 pixels; [`Preprocess::size`] changes that.
    ///
    /// | source | resize and crop | normalisation |
    /// |---|---|---|
    /// | torchvision | shorter side 256 (bilinear), centre 224 | ImageNet mean and deviation |
    /// | timm, V1 | shorter side 256 (bicubic), centre 224 | to -1..1 |
    /// | timm, V2 | shorter side 256 (bicubic), centre 224 | ImageNet mean and deviation |
    /// | Keras | whole photo to 224 (bilinear) | to -1..1 |
    /// | TF-slim, Hugging Face | central 0.875, legacy TensorFlow bilinear to 224 | to -1..1 |
    ///
    /// torchvision: `IMAGENET1K_V1` of `torchvision/models/mobilenetv2.py`; its `IMAGENET1K_V2` resizes to 232: use
    /// `.resize(Resize::ShorterSide { pixels: 232, filter: Filter::Bilinear })`. timm: `default_cfgs` of
    /// `timm/models/mobilenetv3.py` and `efficientnet.py` (crop 0.875; 0.9 for `mobilenetv1_125`). Keras:
    /// `imagenet_utils.preprocess_input(mode="tf")`, whose `load_img(target_size=..)` takes the nearest pixel unless
    /// told otherwise; [`Filter::Nearest`] gives that. TF-slim: `preprocess_for_eval` of
    /// `research/slim/preprocessing/inception_preprocessing.py`. Hugging Face hosts TF-slim's weights, so they get
    /// TF-slim's evaluation; its own image processor resizes the shorter side to 256 instead.
    ///
    /// ```
    /// use mobilenet::{Architecture, WeightSource, preprocess::{Filter, Preprocess, Resize}};
    /// let preprocess = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2);
    /// assert_eq!(preprocess.resize_rule(), Resize::ShorterSide { pixels: 256, filter: Filter::Bilinear });
    /// assert_eq!(preprocess.output_shape(), [1, 224, 224, 3]);
    /// ```
    #[must_use]
    pub fn of(source: WeightSource, architecture: Architecture) -> Self {
        let shorter_side = |filter| Resize::ShorterSide { pixels: 256, filter };
        let (resize, (mean, std)) = match (source, architecture) {
            (WeightSource::Torchvision, _) => (shorter_side(Filter::Bilinear), IMAGENET),
            (WeightSource::Timm, Architecture::MobileNetV1) => (shorter_side(Filter::Bicubic), INCEPTION),
            (WeightSource::Timm, Architecture::MobileNetV2) => (shorter_side(Filter::Bicubic), IMAGENET),
            (WeightSource::Keras, _) => (Resize::Whole { filter: Filter::Bilinear }, INCEPTION),
            (WeightSource::TfSlim | WeightSource::HuggingFace, _) => {
                (Resize::CentralFraction { fraction: 0.875 }, INCEPTION)
            }
        };
        Self::new(resize, 224).normalize(mean, std)
    }
}
