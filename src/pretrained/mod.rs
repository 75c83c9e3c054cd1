//! MobileNetV2 with ImageNet weights inside the binary.
//!
//! `mobilenet_v2.safetensors` is torchvision's `IMAGENET1K_V1` (`mobilenet_v2-b0353104.pth`, 71.9 % top-1) rounded to
//! half precision under this crate's names, 7 MB, made in the repository by
//!
//! ```text
//! cargo run --release --example convert -- --weights mobilenet_v2-b0353104.pth --source torchvision \
//!     --model v2_100 --half --out src/pretrained/mobilenet_v2.safetensors
//! ```
//!
//! Logits are those of the rounded weights, computed in `f32`. `docs/weights.md` has the licences.

mod labels;

pub use labels::{IMAGENET_LABELS, imagenet_labels};

use crate::classifier::Classifier;
use crate::layers::{Initializer, LoadMode, StateDict};
use crate::models::MobileNetV2;
use crate::preprocess::Preprocess;
use crate::{Result, WeightSource};

const WEIGHTS: &[u8] = include_bytes!("mobilenet_v2.safetensors");

/// A classifier of photos into the 1000 ImageNet classes: MobileNetV2 1.0 at 224 x 224.
///
/// ```
/// let classifier = mobilenet::pretrained::mobilenet_v2()?;
/// let photo = mobilenet::image::open("examples/images/chelsea.png")?;
/// let predictions = classifier.classify(&photo)?;
/// assert_eq!(&*predictions.best().label, "Egyptian cat");
/// # Ok::<(), mobilenet::Error>(())
/// ```
///
/// # Errors
///
/// None in a binary that is intact; the weights are checked as any file's.
pub fn mobilenet_v2() -> Result<Classifier> {
    let net = mobilenet_v2_network()?;
    let preprocess = Preprocess::of(net.source(), net.architecture());
    Classifier::new(net, preprocess, IMAGENET_LABELS)
}

/// The network of [`mobilenet_v2`] by itself: to fine-tune, to take features from, or to run on tensors.
///
/// # Errors
///
/// As [`mobilenet_v2`].
pub fn mobilenet_v2_network() -> Result<MobileNetV2<f32>> {
    let state = StateDict::from_bytes(WEIGHTS, None)?;
    let builder = MobileNetV2::builder().source(WeightSource::Torchvision).initializer(Initializer::Zeros);
    let mut net = builder.build()?;
    net.load(state, LoadMode::Strict)?;
    Ok(net)
}
