//! Colour jitter on bytes, as torchvision does it on Pillow's images.

use super::random::Random;
use crate::{Error, Result};

/// How much brightness, contrast and saturation vary: each factor is uniform from `max(0, 1 - amount)` to `1 + amount`,
/// and the three are applied in random order (`ColorJitter` of `torchvision/transforms/transforms.py`). Amounts of 0
/// change nothing.
///
/// Brightness blends with black, contrast with the mean grey of the image, saturation with each pixel's grey
/// (`PIL/ImageEnhance.py`).
///
/// ```
/// use mobilenet::data::{Augmentation, ColourJitter};
/// let jitter = ColourJitter { brightness: 0.4, saturation: 0.2, ..ColourJitter::default() };
/// assert!(Augmentation::new().colour_jitter(jitter).check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ColourJitter {
    /// Greatest relative change of brightness.
    pub brightness: f64,
    /// Greatest relative change of contrast.
    pub contrast: f64,
    /// Greatest relative change of saturation.
    pub saturation: f64,
}

/// What a pixel is blended with.
#[derive(Clone, Copy)]
enum Base {
    Black,
    MeanGrey,
    OwnGrey,
}

impl ColourJitter {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<()> {
        for (name, amount) in
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)]
        {
            if !(amount >= 0.0 && amount.is_finite()) {
                return Err(Error::invalid("augmentation", name, amount, "at least 0 and finite"));
            }
        }
        Ok(())
    }

    /// Changes red, green and blue bytes.
    pub(super) fn apply(&self, pixels: &mut [u8], random: &mut Random) {
        let mut steps =
            [(Base::Black, self.brightness), (Base::MeanGrey, self.contrast), (Base::OwnGrey, self.saturation)];
        random.shuffle(&mut steps);
        for (base, amount) in steps {
            let factor = random.between([(1.0 - amount).max(0.0), 1.0 + amount]);
            if amount > 0.0 {
                blend(pixels, base, factor);
            }
        }
    }
}

/// `base + factor * (pixel - base)`, cut to a byte: `ImagingBlend` of Pillow, which computes in single precision.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates and cuts, as Pillow's")]
fn blend(pixels: &mut [u8], base: Base, factor: f64) {
    let factor = factor as f32;
    let mean = if let Base::MeanGrey = base { mean_grey(pixels) } else { 0 };
    for pixel in pixels.chunks_exact_mut(3) {
        let base = f32::from(if let Base::OwnGrey = base { grey(pixel) } else { mean });
        for value in pixel {
            *value = (base + factor * (f32::from(*value) - base)) as u8;
        }
    }
}

/// ITU-R 601-2 luma in 16-bit fixed point: `L24` of Pillow's `Convert.c`.
#[expect(clippy::cast_possible_truncation, reason = "the weights sum to 65536")]
fn grey(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
}

/// Mean of the pixels' grey, rounded half up.
#[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
fn mean_grey(pixels: &[u8]) -> u8 {
    let sum: u64 = pixels.chunks_exact(3).map(|pixel| u64::from(grey(pixel))).sum();
    let count = (pixels.len() as u64 / 3).max(1);
    ((2 * sum + count) / (2 * count)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blended(base: Base, factor: f64) -> Vec<u8> {
        let mut pixels = vec![200, 100, 50, 0, 0, 0];
        blend(&mut pixels, base, factor);
        pixels
    }

    #[test]
    fn blends_are_pillows() {
        // Grey of the first pixel: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2 in fixed point 124.7 with its half,
        // cut to 124; the mean with black is 62.
        assert_eq!(blended(Base::Black, 0.5), [100, 50, 25, 0, 0, 0]);
        assert_eq!(blended(Base::Black, 1.5), [255, 150, 75, 0, 0, 0]);
        assert_eq!(blended(Base::MeanGrey, 0.5), [131, 81, 56, 31, 31, 31]);
        assert_eq!(blended(Base::MeanGrey, 0.0), [62; 6]);
        assert_eq!(blended(Base::OwnGrey, 0.5), [162, 112, 87, 0, 0, 0]);
        assert_eq!(blended(Base::OwnGrey, 0.0), [124, 124, 124, 0, 0, 0]);
        // Beyond the range it is clipped.
        assert_eq!(blended(Base::OwnGrey, 3.0), [255, 52, 0, 0, 0, 0]);
    }

    #[test]
    fn factor_one_changes_nothing() {
        for base in [Base::Black, Base::MeanGrey, Base::OwnGrey] {
            assert_eq!(blended(base, 1.0), [200, 100, 50, 0, 0, 0]);
        }
    }
}
