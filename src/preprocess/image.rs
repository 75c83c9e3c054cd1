//! Photos: decode JPEG and PNG, or take pixels that are already decoded.
//!
//! Every colour type becomes 8-bit RGB as Pillow's `convert("RGB")` does it, because that is what the published
//! weights were evaluated on: greyscale is repeated, alpha is dropped (not blended), 16-bit samples keep their
//! high byte. EXIF orientation is not applied: neither Pillow nor torchvision does it on opening.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ::image::{DynamicImage, ImageReader, Limits, RgbImage};

use crate::{Error, Result};

/// Longest side that is decoded: beyond any camera, and a bound on what a lying header costs.
const MAX_SIDE: u32 = 32_768;

/// Most bytes that a file may hold or its decoder allocate: room for a photo of 170 million pixels.
const MAX_BYTES: u64 = 512 << 20;

/// An 8-bit RGB image, row by row from the top, at least one pixel.
///
/// Decoded images of the [`image`](https://docs.rs/image/0.25) crate convert with `try_into`.
///
/// ```
/// use mobilenet::image::Image;
/// let red = Image::from_rgb([255, 0, 0].repeat(6 * 4), 6, 4)?;
/// assert_eq!((red.width(), red.height()), (6, 4));
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    pixels: Vec<u8>,
    width: u32,
    height: u32,
}

impl Image {
    /// Takes red, green and blue bytes, row by row from the top without gaps.
    ///
    /// # Errors
    ///
    /// If a side is 0, or the length is not `3 * width * height`.
    pub fn from_rgb(pixels: Vec<u8>, width: u32, height: u32) -> Result<Self> {
        Rgb::new(&pixels, width, height)?;
        Ok(Self { pixels, width, height })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue bytes, row by row from the top.
    #[must_use]
    pub fn as_rgb(&self) -> &[u8] {
        &self.pixels
    }

    pub(super) fn view(&self) -> Rgb<'_> {
        Rgb { pixels: &self.pixels, width: self.width, height: self.height }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} x {})", self.width, self.height)
    }
}

impl TryFrom<RgbImage> for Image {
    type Error = Error;

    fn try_from(image: RgbImage) -> Result<Self> {
        let (width, height) = image.dimensions();
        Self::from_rgb(image.into_raw(), width, height)
    }
}

impl TryFrom<DynamicImage> for Image {
    type Error = Error;

    /// Converts the colour type as the [module](self) says.
    fn try_from(image: DynamicImage) -> Result<Self> {
        let (width, height) = (image.width(), image.height());
        let high = |sample: u16| sample.to_be_bytes()[0];
        let pixels = match image {
            DynamicImage::ImageLuma16(image) => image.as_raw().iter().flat_map(|&grey| [high(grey); 3]).collect(),
            DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|pixel| [high(pixel.0[0]); 3]).collect(),
            DynamicImage::ImageRgb16(image) => image.as_raw().iter().map(|&sample| high(sample)).collect(),
            DynamicImage::ImageRgba16(image) => {
                image.pixels().flat_map(|pixel| [high(pixel.0[0]), high(pixel.0[1]), high(pixel.0[2])]).collect()
            }
            other => other.into_rgb8().into_raw(),
        };
        Self::from_rgb(pixels, width, height)
    }
}

/// Reads and decodes a JPEG or PNG file; the content decides which, not the name.
///
/// # Errors
///
/// If the file cannot be read, is neither format, is damaged or cut short, has a side above 32 768 pixels, or needs
/// more than 512 MiB. The message names the path and the cause.
pub fn open(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    decode(&bytes).map_err(|reason| Error::format("image", format_args!("{}: {reason}", path.display())))
}

/// Decodes a JPEG or PNG file that is in memory.
///
/// # Errors
///
/// As [`open`].
///
/// ```
/// let error = mobilenet::image::from_bytes(b"not a photo").unwrap_err();
/// assert_eq!(error.to_string(), "image: neither JPEG nor PNG");
/// ```
pub fn from_bytes(bytes: &[u8]) -> Result<Image> {
    decode(bytes).map_err(|reason| Error::format("image", reason))
}

fn decode(bytes: &[u8]) -> Result<Image, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    match reader.format() {
        Some(::image::ImageFormat::Jpeg) => check_jpeg_ends(bytes)?,
        Some(::image::ImageFormat::Png) => {}
        _ => return Err(String::from("neither JPEG nor PNG")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| error.to_string())?;
    Image::try_from(image).map_err(|error| error.to_string())
}

/// Refuses a JPEG file that was cut short, which the decoder would fill with grey.
///
/// Segments are walked up to the first scan, so that the thumbnail in a header is not taken for the end; inside
/// scans, `FF D9` can only be the end marker.
fn check_jpeg_ends(bytes: &[u8]) -> Result<(), String> {
    const START_OF_SCAN: u8 = 0xda;
    let mut position = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(position..position + 4) {
        // A marker may be preceded by any number of fill bytes.
        if marker == 0xff {
            position += 1;
            continue;
        }
        position += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            let scans = bytes.get(position..).unwrap_or_default();
            let ends = scans.windows(2).any(|pair| pair == [0xff, 0xd9]);
            return if ends { Ok(()) } else { Err(String::from("JPEG data is cut short")) };
        }
    }
    Err(String::from("JPEG data is cut short or damaged before the first scan"))
}

/// Borrowed pixels whose length and size agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rgb<'a> {
    pub(super) pixels: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
}

impl<'a> Rgb<'a> {
    pub(super) fn new(pixels: &'a [u8], width: u32, height: u32) -> Result<Self> {
        let found = [height as usize, width as usize, 3];
        if width == 0 || height == 0 {
            return Err(Error::shape("image", "pixels", &found, "at least one pixel"));
        }
        // Wider than 64 bits: three times the largest size would overflow them.
        let expected = u128::from(width) * u128::from(height) * 3;
        if pixels.len() as u128 != expected {
            let expected = format_args!("[{expected}], 3 bytes for each of {width} x {height} pixels");
            return Err(Error::shape("image", "pixels", &[pixels.len()], expected));
        }
        Ok(Self { pixels, width, height })
    }
}
