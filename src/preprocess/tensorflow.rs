//! TensorFlow 1's central crop and bilinear resize, which no image library offers.
//!
//! `resize_bilinear(align_corners=False)` without half-pixel centres: output pixel `i` reads source position
//! `i * in / out`, so it samples up and left of the true centre, and a reduction skips pixels. TF-slim's weights are
//! evaluated this way, and a better resize gives them worse answers.

use super::image::Rgb;

/// The two source positions of one output position, and the weight of the second.
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

/// First kept position and length of one side: `tf.image.central_crop`, which drops the same whole number of
/// pixels at both ends.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "TensorFlow cuts; 0 <= margin < length")]
fn central(length: u32, fraction: f64) -> (usize, usize) {
    let length = f64::from(length);
    let margin = ((length - length * fraction) / 2.0) as usize;
    // A fraction that rounds away leaves the middle pixel or two.
    let margin = margin.min((length as usize).saturating_sub(1) / 2);
    (margin, length as usize - 2 * margin)
}

/// In single precision, as TensorFlow's kernel.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions are whole and not negative")]
fn taps(start: usize, length: usize, size: u32) -> Vec<Tap> {
    let scale = length as f32 / size as f32;
    (0..size)
        .map(|index| {
            let position = index as f32 * scale;
            let low = (position.floor() as usize).min(length - 1);
            let high = (low + 1).min(length - 1);
            Tap { low: start + low, high: start + high, weight: position - position.floor() }
        })
        .collect()
}

/// Cuts the central `fraction` of each side and resizes it: `[size, size, 3]` values from 0 to 1.
pub(super) fn central_bilinear(image: Rgb<'_>, fraction: f64, size: u32) -> Vec<f32> {
    let ((left, width), (top, height)) = (central(image.width, fraction), central(image.height, fraction));
    let (columns, rows) = (taps(left, width, size), taps(top, height, size));
    let pitch = image.width as usize * 3;
    let mut output = Vec::with_capacity(columns.len() * rows.len() * 3);
    for row in &rows {
        let (upper, lower) = (&image.pixels[row.low * pitch..][..pitch], &image.pixels[row.high * pitch..][..pitch]);
        for column in &columns {
            for channel in 0..3 {
                let value = |line: &[u8], x: usize| f32::from(line[x * 3 + channel]) * (1.0 / 255.0);
                let mix = |line| {
                    let left = value(line, column.low);
                    left + (value(line, column.high) - left) * column.weight
                };
                let (above, below) = (mix(upper), mix(lower));
                output.push(above + (below - above) * row.weight);
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn central_crop_drops_equal_margins() {
        // tf.image.central_crop of 451 x 300 at 0.875 gives 395 x 264.
        assert_eq!(central(451, 0.875), (28, 395));
        assert_eq!(central(300, 0.875), (18, 264));
        assert_eq!(central(1, 0.875), (0, 1));
        assert_eq!([central(2, 1e-20), central(10, 1e-20), central(9, 1e-20)], [(0, 2), (4, 2), (4, 1)]);
        assert_eq!(central(7, 1.0), (0, 7));
    }

    #[test]
    fn enlarging_samples_from_the_corner() {
        // Without half-pixel centres: positions 0, 0.5, 1, 1.5 of two pixels; the last is held.
        let pixels = [0, 0, 0, 255, 255, 255];
        let image = Rgb::new(&pixels, 2, 1).unwrap();
        let output = central_bilinear(image, 1.0, 4);
        let row: Vec<f32> = output.iter().copied().step_by(3).take(4).collect();
        assert_eq!(row, [0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn reducing_skips_pixels() {
        let pixels: Vec<u8> = (0..8_u8).flat_map(|x| [x * 30; 3]).collect();
        let image = Rgb::new(&pixels, 8, 1).unwrap();
        let row: Vec<f32> = central_bilinear(image, 1.0, 2).into_iter().step_by(3).take(2).collect();
        assert_eq!(row, [0.0, 120.0 * (1.0 / 255.0)]);
    }
}
