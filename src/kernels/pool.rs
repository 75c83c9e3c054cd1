//! Pooling over windows and over whole maps, for any element type.
//!
//! Differs from [`reference`](mod@super::reference) in one way: channels are the innermost loop, so that a pixel is
//! read front to back and the compiler vectorises. Each channel's sum is taken in the same order, so results are equal
//! to the last bit.

use super::reference::Pooling;
use super::{BLOCK, Pixels, PixelsMut, Strides};
use crate::Element;
use crate::shape::Conv2dGeometry;

/// Pooling over windows; see [`reference::pool`](super::reference::pool). Shapes: `input [H, W, C]`,
/// `output [OH, OW, C]`.
///
/// # Panics
///
/// If a slice is shorter than its shape says.
pub fn pool<T: Element>(
    geometry: &Conv2dGeometry,
    pooling: Pooling,
    input: Pixels<'_, T>,
    output: &mut PixelsMut<'_, T>,
) {
    let channels = input.channels;
    let [width, columns] = [geometry.input[1], geometry.output[1]];
    let [from, to] = [input.pitch(), output.pitch()];
    for pixel in 0..geometry.output_pixels() {
        let output = &mut output.data[pixel * to..][..channels];
        output.fill(if pooling == Pooling::Max { T::neg_infinity() } else { T::zero() });
        let mut count = 0;
        for i in 0..geometry.kernel[0] {
            let Some(row) = geometry.source(0, pixel / columns, i) else { continue };
            for j in 0..geometry.kernel[1] {
                let Some(column) = geometry.source(1, pixel % columns, j) else { continue };
                let input = &input.data[(row * width + column) * from..][..channels];
                if pooling == Pooling::Max {
                    greater(output, input);
                } else {
                    add(output, input);
                }
                count += 1;
            }
        }
        match pooling {
            Pooling::Max => {}
            Pooling::Average => divide(output, count.max(1)),
            Pooling::AveragePadded => divide(output, geometry.taps()),
        }
    }
}

/// `output[c] = mean over all pixels of input[c]`. Shapes: `input [H, W, C]`, `output [C]`.
///
/// # Panics
///
/// If `output` is shorter than the channel count.
pub fn global_average<T: Element>(input: Pixels<'_, T>, output: &mut [T]) {
    let output = &mut output[..input.channels];
    output.fill(T::zero());
    for_each_pixel(input, output, add);
    divide(output, input.count());
}

/// `output[c] = greatest over all pixels of input[c]`, a NaN winning. Shapes as [`global_average`]'s.
///
/// # Panics
///
/// If `output` is shorter than the channel count.
pub fn global_max<T: Element>(input: Pixels<'_, T>, output: &mut [T]) {
    let output = &mut output[..input.channels];
    output.fill(T::neg_infinity());
    for_each_pixel(input, output, greater);
}

/// Gives every pixel's channels to `combine`, with the outputs: a block at a time, whose outputs stay in registers.
#[inline(always)]
fn for_each_pixel<T: Element>(input: Pixels<'_, T>, output: &mut [T], combine: impl Fn(&mut [T], &[T])) {
    let Strides { row, pixel, block } = input.strides;
    let (whole, rest) = output.as_chunks_mut::<BLOCK>();
    let starts = |index: usize| {
        (0..input.size[0]).flat_map(move |y| (0..input.size[1]).map(move |x| y * row + x * pixel + index * block))
    };
    for (index, output) in whole.iter_mut().enumerate() {
        let mut results = *output;
        for start in starts(index) {
            combine(&mut results, &input.data[start..][..BLOCK]);
        }
        *output = results;
    }
    if !rest.is_empty() {
        for start in starts(input.channels / BLOCK) {
            combine(rest, &input.data[start..]);
        }
    }
}

#[inline(always)]
fn add<T: Element>(output: &mut [T], input: &[T]) {
    for (sum, &value) in output.iter_mut().zip(input) {
        *sum += value;
    }
}

#[inline(always)]
fn greater<T: Element>(output: &mut [T], input: &[T]) {
    for (greatest, &value) in output.iter_mut().zip(input) {
        *greatest = if value > *greatest || value.is_nan() { value } else { *greatest };
    }
}

fn divide<T: Element>(output: &mut [T], count: usize) {
    let count = T::from_f64(count as f64);
    for value in output {
        *value /= count;
    }
}
