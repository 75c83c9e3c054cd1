//! Resizing and cropping as the frameworks do it.
//!
//! Pillow's filters widen with the reduction (antialiasing) and run on bytes; TensorFlow's older bilinear reads four
//! pixels whatever the reduction and runs on floats, so it lives in [`super::tensorflow`].

use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::image::Rgb;
use crate::{Error, Result};

/// Rows of a photo that are copied at a time.
const BAND: usize = 64;

/// How a photo of any size becomes the network's input size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Resize {
    /// The shorter side becomes `pixels`, the longer `floor(pixels * long / short)`, antialiased on bytes; then the
    /// centre is cut out. torchvision's `Resize` and `CenterCrop`, and timm's.
    ShorterSide {
        /// Length of the shorter side; at least the input size.
        pixels: u32,
        /// Interpolation.
        filter: Filter,
    },
    /// The central `fraction` of each side is cut out, then resized to the input size in floats by TensorFlow's
    /// bilinear without antialiasing and without half-pixel centres: TF-slim's evaluation (`tf.image.central_crop`,
    /// `tf.compat.v1.image.resize_bilinear(align_corners=False)`).
    CentralFraction {
        /// Share of each side that is kept, above 0 and at most 1.
        fraction: f64,
    },
    /// The whole photo becomes the input size, antialiased on bytes; its aspect ratio is not kept.
    Whole {
        /// Interpolation.
        filter: Filter,
    },
}

/// Interpolation as Pillow names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Filter {
    /// The nearest pixel, without antialiasing.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Cubic filter with a = -0.5 (Catmull-Rom).
    Bicubic,
}

/// A rectangle of an image that was resized to `full_width x full_height`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crop {
    pub(super) full_width: u32,
    pub(super) full_height: u32,
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Crop {
    /// torchvision's `Resize(pixels)`, then `CenterCrop(size)`; `pixels >= size`.
    ///
    /// # Errors
    ///
    /// If the longer side does not fit 32 bits.
    pub(super) fn shorter_side(image: Rgb<'_>, pixels: u32, size: u32) -> Result<Self> {
        let (short, long) = (image.width.min(image.height), image.width.max(image.height));
        let long = u64::from(pixels) * u64::from(long) / u64::from(short);
        let long = u32::try_from(long).map_err(|_| {
            let found = [image.height as usize, image.width as usize, 3];
            Error::shape("preprocess", "image", &found, "a less extreme aspect ratio")
        })?;
        let (full_width, full_height) = if image.width <= image.height { (pixels, long) } else { (long, pixels) };
        Ok(Self {
            full_width,
            full_height,
            left: half_to_even(full_width - size),
            top: half_to_even(full_height - size),
            width: size,
            height: size,
        })
    }

    /// All of it.
    pub(super) fn whole(size: u32) -> Self {
        Self { full_width: size, full_height: size, left: 0, top: 0, width: size, height: size }
    }
}

/// `round(margin / 2)` of Python, which rounds a half to the even neighbour.
fn half_to_even(margin: u32) -> u32 {
    let half = margin / 2;
    if margin % 2 == 1 { half + half % 2 } else { half }
}

/// Pillow's `resize`, computed only inside the crop: `[height, width, 3]` bytes, each at most 1 from Pillow's.
///
/// Two things to know: 1. The crop is handed to the resizer as a box in source coordinates. The filter still reads
/// the pixels around the box, so the bytes are those of resizing everything first, but for ties of rounding; and a
/// long strip costs no memory. 2. Columns come before rows in two calls, as in Pillow, because the bytes between the
/// passes are rounded: the resizer's own order differs from Pillow's in a fifth of the bytes, by up to 6 (bicubic);
/// this one in 0.2 %, by 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rows are whole and inside the image")]
pub(super) fn pillow(image: Rgb<'_>, crop: Crop, filter: Filter) -> Result<Vec<u8>> {
    let algorithm = match filter {
        Filter::Nearest => ResizeAlg::Nearest,
        Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
    };
    let span = |source: u32, full: u32, start: u32, length: u32| {
        let scale = f64::from(source) / f64::from(full);
        let begin = f64::from(start) * scale;
        (begin, (f64::from(length) * scale).min(f64::from(source) - begin))
    };
    let (left, width) = span(image.width, crop.full_width, crop.left, crop.width);
    let (top, height) = span(image.height, crop.full_height, crop.top, crop.height);
    let failed = |error: &dyn std::fmt::Display| Error::format("preprocess", error);
    // Only the rows that the second pass reads: a filter reaches two pixels of the coarser grid beyond the box.
    let reach = 2.0 * (height / f64::from(crop.height)).max(1.0) + 1.0;
    let (first, end) = ((top - reach).max(0.0).floor(), (top + height + reach).ceil().min(f64::from(image.height)));
    let (row, top) = (image.width as usize * 3, top - first);
    let pixels = &image.pixels[first as usize * row..end as usize * row];
    // The typed calls: the others would compile the resizer for every pixel type there is, half a minute. And all with
    // images of one type, the resizer's own: a source that is borrowed would be a second, 0.45 MB of a program. So the
    // source is copied, some rows at a time.
    let mut resizer = Resizer::new();
    let options = ResizeOptions::new().resize_alg(algorithm);
    let mut narrow = TypedImage::<U8x3>::new(crop.width, (end - first) as u32);
    let bands = pixels.chunks(BAND * row).zip(narrow.pixels_mut().chunks_mut(BAND * crop.width as usize));
    let mut copy = Vec::new();
    for (band, narrow) in bands {
        copy.clear();
        copy.extend_from_slice(band);
        let rows = (band.len() / row) as u32;
        let source = TypedImage::from_buffer(image.width, rows, &mut copy).map_err(|e| failed(&e))?;
        let mut narrow = TypedImage::from_pixels_slice(crop.width, rows, narrow).map_err(|e| failed(&e))?;
        let columns = options.crop(left, 0.0, width, f64::from(rows));
        resizer.resize_typed(&source, &mut narrow, &columns).map_err(|e| failed(&e))?;
    }
    let mut output = TypedImage::new(crop.width, crop.height);
    let rows = options.crop(0.0, top, f64::from(crop.width), height);
    resizer.resize_typed(&narrow, &mut output, &rows).map_err(|e| failed(&e))?;
    Ok(output.pixels().iter().flat_map(|pixel| pixel.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: u32, height: u32) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..width * height * 3).map(|_| next()).collect()
    }

    #[test]
    fn half_margins_round_to_even_as_python() {
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn long_side_is_cut_as_torchvision() {
        let pixels = vec![0; 451 * 300 * 3];
        let crop = Crop::shorter_side(Rgb::new(&pixels, 451, 300).unwrap(), 256, 224).unwrap();
        assert_eq!(crop, Crop { full_width: 384, full_height: 256, left: 80, top: 16, width: 224, height: 224 });
    }

    #[test]
    fn cropping_while_resizing_equals_cropping_after() {
        for (width, height) in [(451, 300), (91, 130), (17, 33), (640, 427)] {
            let pixels = noise(width, height);
            let image = Rgb::new(&pixels, width, height).unwrap();
            let crop = Crop::shorter_side(image, 64, 56).unwrap();
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let part = pillow(image, crop, filter).unwrap();
                let all = Crop { left: 0, top: 0, width: crop.full_width, height: crop.full_height, ..crop };
                let full = pillow(image, all, filter).unwrap();
                for y in 0..crop.height {
                    let start = ((y + crop.top) * crop.full_width + crop.left) as usize * 3;
                    let row = (y * crop.width) as usize * 3..((y + 1) * crop.width) as usize * 3;
                    let off = part[row.clone()].iter().zip(&full[start..]).map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(off <= Some(1), "{width}x{height} {filter:?} row {y}: off by {off:?}");
                }
            }
        }
    }
}
