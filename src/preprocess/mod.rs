//! From a photo to a network's input, as each weight source wants it.
//!
//! Resize, crop and normalisation belong to the weights: the wrong ones run without an error and answer a few per
//! cent worse. [`Preprocess::of`] knows them; every step can also be chosen.

pub mod image;
mod presets;
mod resize;
mod tensorflow;

pub use resize::{Filter, Resize};

use crate::{Error, Result, Shape, Tensor};
use image::{Image, Rgb};
use resize::Crop;

/// Resize, crop and normalisation of photos for one network.
///
/// Settings are checked when they are used: by [`Preprocess::apply`] and when a classifier is made.
///
/// ```
/// use mobilenet::{Architecture, WeightSource, image::Image, preprocess::Preprocess};
/// let photo = Image::from_rgb(vec![128; 320 * 240 * 3], 320, 240)?;
/// let preprocess = Preprocess::of(WeightSource::Keras, Architecture::MobileNetV2).size(160);
/// let input = preprocess.apply(&photo)?;
/// assert_eq!(input.shape(), [1, 160, 160, 3]);
/// assert!((input.as_slice()[0] - (128.0 / 127.5 - 1.0)).abs() < 1e-6);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Preprocess {
    resize: Resize,
    size: u32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Largest input side: far above any published network's, and small enough that sizes cannot overflow.
const MAX_SIZE: u32 = 16_384;

impl Preprocess {
    /// A square input of `size` pixels, values from 0 to 1.
    #[must_use]
    pub fn new(resize: Resize, size: u32) -> Self {
        Self { resize, size, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// The same for another input size; the shorter side of [`Resize::ShorterSide`] changes in proportion, rounded
    /// down (256 for 224 becomes 182 for 160).
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        if let Resize::ShorterSide { pixels, .. } = &mut self.resize {
            let scaled = u64::from(*pixels) * u64::from(size) / u64::from(self.size.max(1));
            *pixels = u32::try_from(scaled).unwrap_or(u32::MAX);
        }
        self.size = size;
        self
    }

    /// The same with another way to resize.
    #[must_use]
    pub fn resize(self, resize: Resize) -> Self {
        Self { resize, ..self }
    }

    /// The same with `(value - mean) / std` per channel (red, green, blue), where values run from 0 to 1.
    #[must_use]
    pub fn normalize(self, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { mean, std, ..self }
    }

    /// Shape of what [`Preprocess::apply`] gives: `[1, size, size, 3]`.
    #[must_use]
    pub fn output_shape(&self) -> Shape {
        [1, self.size as usize, self.size as usize, 3]
    }

    /// How it resizes.
    #[must_use]
    pub fn resize_rule(&self) -> Resize {
        self.resize
    }

    /// Makes the network's input from a photo: `[1, size, size, 3]`.
    ///
    /// # Errors
    ///
    /// If a setting is out of range: a size of 0 or above 16 384, a shorter side below the size, a fraction outside
    /// (0, 1], a mean that is not finite, a standard deviation that is not positive.
    pub fn apply(&self, image: &Image) -> Result<Tensor<f32>> {
        self.run(image.view())
    }

    /// As [`Preprocess::apply`], from red, green and blue bytes, row by row from the top without gaps.
    ///
    /// # Errors
    ///
    /// As [`Preprocess::apply`]; and if a side is 0 or the length is not `3 * width * height`.
    pub fn apply_rgb(&self, pixels: &[u8], width: u32, height: u32) -> Result<Tensor<f32>> {
        self.run(Rgb::new(pixels, width, height)?)
    }

    fn run(&self, image: Rgb<'_>) -> Result<Tensor<f32>> {
        self.check()?;
        let crop = match self.resize {
            Resize::CentralFraction { fraction } => {
                let mut values = tensorflow::central_bilinear(image, fraction, self.size);
                for pixel in values.chunks_exact_mut(3) {
                    for ((value, mean), std) in pixel.iter_mut().zip(self.mean).zip(self.std) {
                        *value = (*value - mean) / std;
                    }
                }
                return Tensor::from_shape_vec(self.output_shape(), values);
            }
            Resize::ShorterSide { pixels, filter } => (Crop::shorter_side(image, pixels, self.size)?, filter),
            Resize::Whole { filter } => (Crop::whole(self.size), filter),
        };
        let pixels = resize::pillow(image, crop.0, crop.1)?;
        let [red, green, blue] = self.tables();
        let values = pixels
            .chunks_exact(3)
            .flat_map(|pixel| [red[pixel[0] as usize], green[pixel[1] as usize], blue[pixel[2] as usize]])
            .collect();
        Tensor::from_shape_vec(self.output_shape(), values)
    }

    /// The normalised value of every byte, per channel.
    fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - self.mean[channel]) / self.std[channel])
        })
    }

    pub(crate) fn check(&self) -> Result<()> {
        const NAME: &str = "preprocess";
        if self.size == 0 || self.size > MAX_SIZE {
            return Err(Error::invalid(NAME, "size", self.size, format_args!("1 to {MAX_SIZE}")));
        }
        match self.resize {
            Resize::ShorterSide { pixels, .. } if pixels < self.size || pixels > 2 * MAX_SIZE => {
                let expected = format_args!("{} (the size) to {}", self.size, 2 * MAX_SIZE);
                return Err(Error::invalid(NAME, "shorter side", pixels, expected));
            }
            Resize::CentralFraction { fraction } if !(fraction > 0.0 && fraction <= 1.0) => {
                return Err(Error::invalid(NAME, "central fraction", fraction, "above 0, at most 1"));
            }
            _ => {}
        }
        if let Some(mean) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(Error::invalid(NAME, "mean", mean, "finite"));
        }
        if let Some(std) = self.std.iter().find(|std| !(**std > 0.0 && std.is_finite())) {
            return Err(Error::invalid(NAME, "standard deviation", std, "positive and finite"));
        }
        Ok(())
    }
}
