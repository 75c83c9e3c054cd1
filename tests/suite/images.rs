//! Photos in: colour types, sizes, and files that are not what they claim.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use mobilenet::Error;
use mobilenet::image::{Image, from_bytes, open};

fn photo() -> RgbImage {
    RgbImage::from_fn(37, 23, |x, y| Rgb([x, y, x * y].map(|value| value.to_le_bytes()[0].wrapping_mul(9))))
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG file that is nothing but a header of this size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = !chunk.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &chunk, &crc.to_be_bytes(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat()
}

fn assert_refused(bytes: &[u8], cause: &str) {
    match from_bytes(bytes) {
        Err(error @ Error::Format { .. }) => {
            let message = error.to_string();
            assert!(message.contains(cause), "{message:?} does not name {cause:?}");
        }
        other => panic!("expected a format error that names {cause:?}, got {other:?}"),
    }
}

#[test]
fn colour_types_become_rgb_as_pillow_converts_them() {
    use image::{GrayAlphaImage, GrayImage, ImageBuffer, LumaA, Rgba, RgbaImage};
    let grey: DynamicImage = GrayImage::from_raw(2, 1, vec![7, 200]).unwrap().into();
    // Colours stay as they are under any alpha.
    let grey_alpha: DynamicImage = GrayAlphaImage::from_raw(2, 1, vec![7, 0, 200, 128]).unwrap().into();
    let alpha: DynamicImage = RgbaImage::from_raw(2, 1, vec![7, 7, 7, 0, 200, 200, 200, 3]).unwrap().into();
    // 16-bit samples keep their high byte: 0xc8ff would round to 0xc9.
    let (low, high) = (0x07ff, 0xc8ff);
    let grey_16: DynamicImage = ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 1, vec![low, high]).unwrap().into();
    let grey_alpha_16: DynamicImage =
        ImageBuffer::<LumaA<u16>, _>::from_raw(2, 1, vec![low, 0, high, 9]).unwrap().into();
    let rgb_16: DynamicImage =
        ImageBuffer::<Rgb<u16>, _>::from_raw(2, 1, vec![low, low, low, high, high, high]).unwrap().into();
    let rgba_16: DynamicImage =
        ImageBuffer::<Rgba<u16>, _>::from_raw(2, 1, vec![low, low, low, 0, high, high, high, 9]).unwrap().into();
    for image in [grey, grey_alpha, alpha, grey_16, grey_alpha_16, rgb_16, rgba_16] {
        let kind = image.color();
        let decoded = from_bytes(&encode(&image, ImageFormat::Png)).unwrap();
        assert_eq!(decoded.as_rgb(), [7, 7, 7, 200, 200, 200], "{kind:?}");
        assert_eq!(Image::try_from(image).unwrap(), decoded, "{kind:?}");
    }
}

#[test]
fn content_decides_the_format_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.jpg");
    std::fs::write(&path, encode(&photo().into(), ImageFormat::Png)).unwrap();
    assert_eq!(open(&path).unwrap(), Image::try_from(photo()).unwrap());
}

#[test]
fn jpeg_photo_is_close_to_its_source() {
    let flat = RgbImage::from_pixel(40, 30, Rgb([200, 100, 50]));
    let decoded = from_bytes(&encode(&flat.into(), ImageFormat::Jpeg)).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (40, 30));
    let off = decoded.as_rgb().chunks_exact(3).flat_map(|pixel| [200, 100, 50].into_iter().zip(pixel.to_vec()));
    assert!(off.map(|(expected, found)| found.abs_diff(expected)).max() <= Some(4));
}

#[test]
fn images_without_pixels_are_refused() {
    assert!(matches!(Image::from_rgb(Vec::new(), 0, 0), Err(Error::Shape { .. })));
    assert!(matches!(Image::from_rgb(Vec::new(), 5, 0), Err(Error::Shape { .. })));
    assert!(matches!(Image::try_from(RgbImage::new(0, 5)), Err(Error::Shape { .. })));
    assert!(matches!(Image::try_from(DynamicImage::new_luma16(5, 0)), Err(Error::Shape { .. })));
    assert_refused(&png_header(0, 7), "");
}

#[test]
fn slices_of_another_length_are_refused() {
    for length in [0, 1, 35, 37] {
        assert!(matches!(Image::from_rgb(vec![0; length], 4, 3), Err(Error::Shape { .. })));
    }
    // A product that overflows 32 bits is no way in.
    assert!(Image::from_rgb(vec![0; 12], u32::MAX, u32::MAX).is_err());
    assert!(Image::from_rgb(Vec::new(), 1 << 31, 2).is_err());
}

#[test]
fn files_that_are_no_images_are_refused() {
    for bytes in [&b""[..], b"x", b"not a photo", b"GIF89a\x01\0\x01\0", b"<svg></svg>", &[0; 4096]] {
        assert_refused(bytes, "neither JPEG nor PNG");
    }
}

#[test]
fn errors_name_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.png");
    assert!(matches!(open(&missing), Err(Error::Io { path, .. }) if path.ends_with("missing.png")));
    assert!(matches!(open(folder.path()), Err(Error::Io { .. })));
    let text = folder.path().join("text.png");
    std::fs::write(&text, "text").unwrap();
    let message = open(&text).unwrap_err().to_string();
    assert!(message.contains("text.png") && message.contains("neither JPEG nor PNG"), "{message}");
}

#[test]
fn headers_that_claim_too_much_are_refused_before_memory_is_taken() {
    // 10 GB of pixels; a side beyond the limit; both sides within it, but too many bytes.
    for (width, height) in [(60_000, 60_000), (40_000, 1), (1, u32::MAX), (32_768, 32_768)] {
        assert_refused(&png_header(width, height), "");
    }
}

#[test]
fn files_cut_short_are_refused_at_every_length() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let bytes = encode(&photo().into(), format);
        assert!(from_bytes(&bytes).is_ok());
        // A PNG is whole without its last chunk, whose 12 bytes say only that it ends.
        let last = if format == ImageFormat::Png { bytes.len() - 12 } else { bytes.len() };
        for length in 0..last {
            assert!(from_bytes(&bytes[..length]).is_err(), "{format:?} cut to {length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let bytes = encode(&photo().into(), format);
        for position in 0..bytes.len() {
            for damage in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[position] ^= damage;
                // Some damage is invisible, such as that of a pixel; none may panic.
                let _ = from_bytes(&bytes);
            }
        }
    }
}
