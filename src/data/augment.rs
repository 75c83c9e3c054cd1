//! Augmentation: every epoch sees each photo a little different.
//!
//! What is drawn for a sample depends on its seed alone. Crop and resize are one pass over the cropped pixels, the
//! definition of torchvision's `resized_crop`, with the antialiasing of the network's own preprocessing.

use std::ops::RangeInclusive;

use super::ColourJitter;
use super::random::Random;
use crate::preprocess::image::Image;
use crate::preprocess::{Filter, Preprocess, Resize};
use crate::{Error, Result, Tensor};

/// Random changes of a photo before it becomes a network's input: crop, mirror, colours.
///
/// Settings are checked by [`Augmentation::check`], and when a loader is built.
///
/// ```
/// use mobilenet::data::{Augmentation, ColourJitter};
/// use mobilenet::{Architecture, WeightSource, image::Image, preprocess::Preprocess};
/// let augmentation = Augmentation::new()
///     .resized_crop(0.4..=1.0)
///     .flip(0.5)
///     .colour_jitter(ColourJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2 });
/// let photo = Image::from_rgb((0..=255).cycle().take(64 * 48 * 3).collect(), 64, 48)?;
/// let preprocess = Preprocess::of(WeightSource::Keras, Architecture::MobileNetV1).size(32);
/// let input = augmentation.apply(&photo, &preprocess, 7)?;
/// assert_eq!(input.shape(), [1, 32, 32, 3]);
/// assert_eq!(input, augmentation.apply(&photo, &preprocess, 7)?);
/// assert_ne!(input, augmentation.apply(&photo, &preprocess, 8)?);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Augmentation {
    /// Share of the photo's area; without it, the preprocessing's own resize.
    scale: Option<[f64; 2]>,
    /// Width over height.
    ratio: [f64; 2],
    /// Probability.
    flip: f64,
    jitter: ColourJitter,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self::new()
    }
}

/// Whole pixels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rectangle {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Augmentation {
    /// No change; the setters add some. The same as [`Augmentation::none`].
    #[must_use]
    pub fn new() -> Self {
        Self { scale: None, ratio: [3.0 / 4.0, 4.0 / 3.0], flip: 0.0, jitter: ColourJitter::default() }
    }

    /// No change: training images are what evaluation images are.
    #[must_use]
    pub fn none() -> Self {
        Self::new()
    }

    /// For ImageNet: crops of 8 to 100 % of the area, and mirroring (`ClassificationPresetTrain` of
    /// `torchvision/references/classification/presets.py`).
    #[must_use]
    pub fn imagenet() -> Self {
        Self::new().resized_crop(0.08..=1.0).flip(0.5)
    }

    /// For fine-tuning on some hundred images, where the object fills most of the photo: crops of 60 to 100 % of the
    /// area, mirroring, and colours within 20 %.
    #[must_use]
    pub fn light() -> Self {
        let jitter = ColourJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2 };
        Self::new().resized_crop(0.6..=1.0).flip(0.5).colour_jitter(jitter)
    }

    /// Cuts a random rectangle out and resizes it to the input size: its share of the photo's area is uniform in
    /// `scale`, the logarithm of its ratio uniform. Ten draws that do not fit give the central crop
    /// (`RandomResizedCrop` of `torchvision/transforms/transforms.py`; Szegedy et al. 2014).
    #[must_use]
    pub fn resized_crop(self, scale: RangeInclusive<f64>) -> Self {
        Self { scale: Some([*scale.start(), *scale.end()]), ..self }
    }

    /// Width over height of [`Augmentation::resized_crop`]; 3/4 to 4/3 unless set.
    #[must_use]
    pub fn ratio(self, ratio: RangeInclusive<f64>) -> Self {
        Self { ratio: [*ratio.start(), *ratio.end()], ..self }
    }

    /// Mirrors left and right with this probability.
    #[must_use]
    pub fn flip(self, probability: f64) -> Self {
        Self { flip: probability, ..self }
    }

    /// Varies the colours.
    #[must_use]
    pub fn colour_jitter(self, jitter: ColourJitter) -> Self {
        Self { jitter, ..self }
    }

    /// Whether the settings are in range.
    ///
    /// # Errors
    ///
    /// If a scale is not in (0, 1], a ratio is not positive and finite, either range is empty, the probability is not
    /// in [0, 1], or an amount of jitter is negative or not finite.
    pub fn check(&self) -> Result<()> {
        const NAME: &str = "augmentation";
        let show = |[low, high]: [f64; 2]| format!("{low}..={high}");
        if let Some([low, high]) = self.scale
            && !(low > 0.0 && low <= high && high <= 1.0)
        {
            return Err(Error::invalid(NAME, "scale", show([low, high]), "a range within 0 (excluded) to 1"));
        }
        let [low, high] = self.ratio;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            return Err(Error::invalid(NAME, "ratio", show(self.ratio), "a range of positive finite numbers"));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(Error::invalid(NAME, "flip probability", self.flip, "0 to 1"));
        }
        self.jitter.check()
    }

    /// A changed photo as the network's input `[1, size, size, 3]`, with the preprocessing's size, interpolation and
    /// normalisation. Equal arguments give equal bits.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, here or in the preprocessing.
    pub fn apply(&self, image: &Image, preprocess: &Preprocess, seed: u64) -> Result<Tensor<f32>> {
        self.check()?;
        let mut random = Random::new(seed);
        let mut input = if let Some(scale) = self.scale {
            let crop = resized_crop(extent(image), scale, self.ratio, &mut random);
            let filter = match preprocess.resize_rule() {
                Resize::ShorterSide { filter, .. } | Resize::Whole { filter } => filter,
                Resize::CentralFraction { .. } => Filter::Bilinear,
            };
            let whole = preprocess.clone().resize(Resize::Whole { filter });
            self.input(&cut(image, crop)?, &whole, &mut random)?
        } else {
            self.input(image, preprocess, &mut random)?
        };
        if random.unit() < self.flip {
            mirror(&mut input);
        }
        Ok(input)
    }

    /// Resized, with its colours changed, and normalised.
    fn input(&self, image: &Image, preprocess: &Preprocess, random: &mut Random) -> Result<Tensor<f32>> {
        if self.jitter.is_none() {
            return preprocess.apply(image);
        }
        // Colours change between the resize and the normalisation, on bytes: the preprocessing is used for one, then
        // for the other, where it has nothing to resize.
        let resized = preprocess.clone().normalize([0.0; 3], [1.0; 3]).apply(image)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values from 0 to 1")]
        let byte = |value: &f32| (value * 255.0).round() as u8;
        let mut pixels: Vec<u8> = resized.as_slice().iter().map(byte).collect();
        self.jitter.apply(&mut pixels, random);
        let side = u32::try_from(resized.shape()[1]).unwrap_or(u32::MAX);
        preprocess.clone().resize(Resize::Whole { filter: Filter::Nearest }).apply_rgb(&pixels, side, side)
    }
}

/// Width and height.
fn extent(image: &Image) -> [usize; 2] {
    [image.width() as usize, image.height() as usize]
}

/// `RandomResizedCrop.get_params` of torchvision.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded; the cast saturates")]
fn resized_crop([width, height]: [usize; 2], scale: [f64; 2], ratio: [f64; 2], random: &mut Random) -> Rectangle {
    const TRIES: usize = 10;
    let round = |value: f64| value.round_ties_even() as usize;
    let area = width as f64 * height as f64;
    for _ in 0..TRIES {
        let target = area * random.between(scale);
        let aspect = random.between(ratio.map(f64::ln)).exp();
        let [w, h] = [round((target * aspect).sqrt()), round((target / aspect).sqrt())];
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = random.below(height - h + 1);
            return Rectangle { left: random.below(width - w + 1), top, width: w, height: h };
        }
    }
    let found = width as f64 / height as f64;
    let w = if found > ratio[1] { round(height as f64 * ratio[1]).clamp(1, width) } else { width };
    let h = if found < ratio[0] { round(width as f64 / ratio[0]).clamp(1, height) } else { height };
    Rectangle { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

fn cut(image: &Image, crop: Rectangle) -> Result<Image> {
    let rows = image.as_rgb().chunks_exact(3 * image.width() as usize).skip(crop.top).take(crop.height);
    let pixels = rows.flat_map(|row| &row[3 * crop.left..3 * (crop.left + crop.width)]).copied().collect();
    let side = |length| u32::try_from(length).unwrap_or(u32::MAX);
    Image::from_rgb(pixels, side(crop.width), side(crop.height))
}

/// Mirrors left and right.
fn mirror(input: &mut Tensor<f32>) {
    let row = input.shape()[2] * 3;
    for row in input.as_mut_slice().chunks_exact_mut(row) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

    #[test]
    fn crops_keep_area_and_ratio_in_range_and_reach_both_ends() {
        let (width, height) = (400, 300);
        let crops: Vec<Rectangle> =
            (0..4000).map(|seed| resized_crop([width, height], [0.08, 1.0], RATIO, &mut Random::new(seed))).collect();
        let (mut areas, mut logarithms) = (Vec::new(), Vec::new());
        for crop in &crops {
            assert!(crop.left + crop.width <= width && crop.top + crop.height <= height, "{crop:?}");
            let (w, h) = (crop.width as f64, crop.height as f64);
            // Half a pixel of rounding on each side.
            let slack = 0.5 / w + 0.5 / h + 1e-3;
            let (area, ratio) = (w * h / (width * height) as f64, w / h);
            assert!(area >= 0.08 * (1.0 - slack) && area <= 1.0, "{crop:?}");
            assert!(ratio >= RATIO[0] * (1.0 - slack) && ratio <= RATIO[1] * (1.0 + slack), "{crop:?}");
            areas.push(area);
            logarithms.push(ratio.ln());
        }
        let least = areas.iter().copied().fold(1.0, f64::min);
        let most = areas.iter().copied().fold(0.0, f64::max);
        assert!(least < 0.09 && most > 0.97, "areas from {least} to {most}");
        // Small crops fit at any ratio, so theirs is uniform in the logarithm: mean 0, and variance ln(4/3)^2 / 3.
        let small: Vec<f64> =
            areas.iter().zip(&logarithms).filter(|(area, _)| **area < 0.5).map(|(_, ratio)| *ratio).collect();
        let mean = small.iter().sum::<f64>() / small.len() as f64;
        let variance = small.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / small.len() as f64;
        let expected = RATIO[1].ln().powi(2) / 3.0;
        assert!(mean.abs() < 0.02, "mean logarithm of the ratio {mean}");
        assert!((variance / expected - 1.0).abs() < 0.08, "variance {variance}, expected {expected}");
        // Both corners are reached.
        assert!(crops.iter().any(|crop| crop.left == 0) && crops.iter().any(|crop| crop.left + crop.width == width));
        assert!(crops.iter().any(|crop| crop.top == 0) && crops.iter().any(|crop| crop.top + crop.height == height));
    }

    #[test]
    fn crops_that_never_fit_are_central() {
        let crop = |size, ratio| resized_crop(size, [1.0, 1.0], ratio, &mut Random::new(3));
        assert_eq!(crop([100, 10], RATIO), Rectangle { left: 43, top: 0, width: 13, height: 10 });
        assert_eq!(crop([10, 100], RATIO), Rectangle { left: 0, top: 43, width: 10, height: 13 });
        assert_eq!(crop([1, 1], RATIO), Rectangle { left: 0, top: 0, width: 1, height: 1 });
        // A pixel is the least, however extreme the ratio.
        assert_eq!(crop([1, 9], [50.0, 60.0]), Rectangle { left: 0, top: 4, width: 1, height: 1 });
        assert_eq!(crop([9, 1], [0.01, 0.02]), Rectangle { left: 4, top: 0, width: 1, height: 1 });
    }

    #[test]
    fn cut_takes_the_rectangle() {
        let image = Image::from_rgb((0..4 * 3 * 3).collect(), 4, 3).unwrap();
        let part = cut(&image, Rectangle { left: 1, top: 1, width: 2, height: 2 }).unwrap();
        assert_eq!(part.as_rgb(), [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
    }
}
