//! One labelled image: where it comes from, and how it is decoded for training.
//!
//! Unlike [`image::open`], which follows Pillow and drops alpha, transparent parts become white here: cut-outs keep
//! arbitrary colours under their transparent parts, which a network would learn.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::{DynamicImage, ImageFormat, ImageReader, RgbaImage};

use crate::preprocess::image::{self, Image};
use crate::{Error, Result};

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A JPEG or PNG file, decoded whenever it is used.
    File(PathBuf),
    /// Decoded already; clones share the pixels.
    Memory(Arc<Image>),
}

/// An image and the index of its class.
///
/// ```
/// use mobilenet::{data::Sample, image::Image};
/// let generated = Sample::new(Image::from_rgb(vec![200; 12], 2, 2)?, 0);
/// assert_eq!(generated.load()?.width(), 2);
/// let photo = Sample::new("photos/cat/1.jpg", 1);
/// assert_eq!((photo.label(), photo.load().is_err()), (1, true));
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    source: Source,
    label: usize,
}

impl Sample {
    /// An image (an [`Image`], or the path of a file) of class `label`.
    pub fn new(source: impl Into<Source>, label: usize) -> Self {
        Self { source: source.into(), label }
    }

    /// Where the image comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Index of its class.
    #[must_use]
    pub fn label(&self) -> usize {
        self.label
    }

    /// The decoded image, composited on white.
    ///
    /// # Errors
    ///
    /// As [`image::open`].
    pub fn load(&self) -> Result<Arc<Image>> {
        match &self.source {
            Source::File(path) => open(path).map(Arc::new),
            Source::Memory(image) => Ok(Arc::clone(image)),
        }
    }
}

impl From<Image> for Source {
    fn from(image: Image) -> Self {
        Self::Memory(Arc::new(image))
    }
}

impl From<Arc<Image>> for Source {
    fn from(image: Arc<Image>) -> Self {
        Self::Memory(image)
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

/// Only PNG has alpha; everything else is what [`image::open`] makes of it.
fn open(path: &Path) -> Result<Image> {
    const PNG_SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
    let io = |error| Error::io(path, error);
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut start = [0; 8];
    if file.read_exact(&mut start).is_err() || start != PNG_SIGNATURE {
        return image::open(path);
    }
    file.rewind().map_err(io)?;
    let malformed = |error: &dyn std::fmt::Display| Error::format("image", format_args!("{}: {error}", path.display()));
    // The reader's own limit of what it allocates is 512 MiB, as that of `image::open`.
    let image = ImageReader::with_format(file, ImageFormat::Png).decode().map_err(|error| malformed(&error))?;
    let image = if image.color().has_alpha() { on_white(image)? } else { Image::try_from(image)? };
    Ok(image)
}

/// Colours over white as alpha says, rounded to the nearest byte; 16-bit samples keep their high byte.
fn on_white(image: DynamicImage) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    let image = match image {
        DynamicImage::ImageRgba16(_) | DynamicImage::ImageLumaA16(_) => {
            let high = |sample: &u16| sample.to_be_bytes()[0];
            let bytes = image.into_rgba16().as_raw().iter().map(high).collect();
            RgbaImage::from_raw(width, height, bytes)
                .ok_or_else(|| Error::format("image", "16-bit samples do not fill the image"))?
        }
        other => other.into_rgba8(),
    };
    let pixels = image.pixels().flat_map(|pixel| {
        let [red, green, blue, alpha] = pixel.0;
        [red, green, blue].map(|colour| over_white(colour, alpha))
    });
    Image::from_rgb(pixels.collect(), width, height)
}

#[expect(clippy::cast_possible_truncation, reason = "a mean of two bytes")]
fn over_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::over_white;

    #[test]
    fn alpha_mixes_with_white() {
        assert_eq!([over_white(7, 255), over_white(7, 0), over_white(255, 9), over_white(0, 128)], [7, 255, 255, 127]);
    }
}
