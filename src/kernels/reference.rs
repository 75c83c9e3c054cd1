//! Plain loops that define what each kernel means: the oracle of the SIMD forms, and the `f64` path.
//!
//! Written for the reader, not for speed: one output at a time, taps in order, sums in the element's own type.

use super::{Clamp, Pixels, PixelsMut};
use crate::Element;
use crate::shape::Conv2dGeometry;

/// Pointwise (1x1) convolution, a matrix product.
///
/// `output[m, n] = clamp(bias[n] + sum over k of input[m, k] * weight[k, n] + residual[m, n])`
///
/// Shapes: `input [M, K]`, `output [M, N]`, `residual [M, N]`, `weight [K, N]`, `bias [N]`.
///
/// # Panics
///
/// If the maps' pixel counts differ or a slice is shorter than its shape says.
pub fn pointwise<T: Element>(
    input: Pixels<'_, T>,
    weight: &[T],
    bias: Option<&[T]>,
    residual: Option<Pixels<'_, T>>,
    clamp: Clamp<T>,
    output: &mut PixelsMut<'_, T>,
) {
    assert_eq!(input.count(), output.count(), "pixel counts differ");
    let columns = output.channels;
    for m in 0..input.count() {
        let x = &input.data[m * input.pitch()..][..input.channels];
        for n in 0..columns {
            let mut sum = bias.map_or(T::zero(), |bias| bias[n]);
            for (k, &x) in x.iter().enumerate() {
                sum += x * weight[k * columns + n];
            }
            if let Some(residual) = residual {
                sum += residual.data[m * residual.pitch() + n];
            }
            output.data[m * output.pitch() + n] = clamp.apply(sum);
        }
    }
}

/// Depthwise convolution with channel multiplier `Q`: output channel `c * Q + q` reads input channel `c` alone.
///
/// `output[y, x, c * Q + q] = clamp(bias[c * Q + q] + sum over i, j of input[y * s + i * d - p, x * s + j * d - p, c] * weight[i, j, c, q])`
///
/// Shapes: `input [H, W, C]`, `weight [KH, KW, C, Q]`, `bias [C * Q]`; `output` is the rows from `first_row` on
/// that fit into it, `[rows, OW, C * Q]`. `Q` is `output.channels / input.channels`.
///
/// # Panics
///
/// If a slice is shorter than its shape says or `output` is not whole rows.
pub fn depthwise<T: Element>(
    geometry: &Conv2dGeometry,
    input: Pixels<'_, T>,
    weight: &[T],
    bias: Option<&[T]>,
    clamp: Clamp<T>,
    first_row: usize,
    output: &mut PixelsMut<'_, T>,
) {
    let [_, width] = geometry.input;
    let [_, columns] = geometry.output;
    let [kernel_h, kernel_w] = geometry.kernel;
    assert_eq!(output.count() % columns, 0, "output is not whole rows");
    let channels = output.channels;
    let multiplier = channels / input.channels;
    assert_eq!(multiplier * input.channels, channels, "output channels are no multiple of the input's");
    for pixel in 0..output.count() {
        let (y, x) = (first_row + pixel / columns, pixel % columns);
        for c in 0..channels {
            let mut sum = bias.map_or(T::zero(), |bias| bias[c]);
            for i in 0..kernel_h {
                let Some(row) = geometry.source(0, y, i) else { continue };
                for j in 0..kernel_w {
                    let Some(column) = geometry.source(1, x, j) else { continue };
                    let value = input.data[(row * width + column) * input.pitch() + c / multiplier];
                    sum += value * weight[(i * kernel_w + j) * channels + c];
                }
            }
            output.data[pixel * output.pitch() + c] = clamp.apply(sum);
        }
    }
}

/// Convolution with `G` groups: output channels of group `g` read input channels of group `g`.
///
/// `output[y, x, n] = clamp(bias[n] + sum over i, j, k of input[y * s + i * d - p, x * s + j * d - p, g * K + k] * weight[i, j, k, n])`
///
/// Shapes: `input [H, W, G * K]`, `weight [KH, KW, K, N]`, `bias [N]`; `output` as in [`depthwise`].
///
/// # Panics
///
/// If a slice is shorter than its shape says, or `output` is not whole rows.
#[expect(clippy::too_many_arguments, reason = "the same arguments as its neighbours, and the groups")]
pub fn conv<T: Element>(
    geometry: &Conv2dGeometry,
    groups: usize,
    input: Pixels<'_, T>,
    weight: &[T],
    bias: Option<&[T]>,
    clamp: Clamp<T>,
    first_row: usize,
    output: &mut PixelsMut<'_, T>,
) {
    let [_, width] = geometry.input;
    let [_, columns] = geometry.output;
    let [kernel_h, kernel_w] = geometry.kernel;
    assert_eq!(output.count() % columns, 0, "output is not whole rows");
    let channels = output.channels;
    let (group_in, group_out) = (input.channels / groups, channels / groups);
    for pixel in 0..output.count() {
        let (y, x) = (first_row + pixel / columns, pixel % columns);
        for n in 0..channels {
            let first = n / group_out * group_in;
            let mut sum = bias.map_or(T::zero(), |bias| bias[n]);
            for i in 0..kernel_h {
                let Some(row) = geometry.source(0, y, i) else { continue };
                for j in 0..kernel_w {
                    let Some(column) = geometry.source(1, x, j) else { continue };
                    let taps = &input.data[(row * width + column) * input.pitch() + first..][..group_in];
                    for (k, &value) in taps.iter().enumerate() {
                        sum += value * weight[((i * kernel_w + j) * group_in + k) * channels + n];
                    }
                }
            }
            output.data[pixel * output.pitch() + n] = clamp.apply(sum);
        }
    }
}

/// The gradient of [`pointwise`] by its weight, added to `sums`.
///
/// `sums[k, n] += sum over m of input[m, k] * gradient[m, n]`
///
/// Shapes: `input [M, K]`, `gradient [M, N]`, `sums [K, N]`.
///
/// # Panics
///
/// If the maps' pixel counts differ or a slice is shorter than its shape says.
pub fn outer<T: Element>(input: Pixels<'_, T>, gradient: Pixels<'_, T>, sums: &mut [T]) {
    assert_eq!(input.count(), gradient.count(), "pixel counts differ");
    let columns = gradient.channels;
    for (k, sums) in sums.chunks_exact_mut(columns).enumerate().take(input.channels) {
        for m in 0..input.count() {
            let value = input.data[m * input.pitch() + k];
            for (sum, &gradient) in sums.iter_mut().zip(&gradient.data[m * gradient.pitch()..]) {
                *sum += value * gradient;
            }
        }
    }
}

/// Calls `product(output, input, weight)` with the indices of every product that [`depthwise`] sums, weights and
/// channels in the order of its own.
fn depthwise_products(
    geometry: &Conv2dGeometry,
    [channels, pitch]: [usize; 2],
    [d_channels, d_pitch]: [usize; 2],
    mut product: impl FnMut(usize, usize, usize),
) {
    let ([_, width], [_, columns]) = (geometry.input, geometry.output);
    let multiplier = d_channels / channels.max(1);
    for pixel in 0..geometry.output_pixels() {
        for i in 0..geometry.kernel[0] {
            let Some(row) = geometry.source(0, pixel / columns, i) else { continue };
            for j in 0..geometry.kernel[1] {
                let Some(column) = geometry.source(1, pixel % columns, j) else { continue };
                let (from, tap) = ((row * width + column) * pitch, i * geometry.kernel[1] + j);
                for channel in 0..d_channels {
                    product(pixel * d_pitch + channel, from + channel / multiplier, tap * d_channels + channel);
                }
            }
        }
    }
}

/// The gradient of [`depthwise`] by its input, added to `d_input`.
///
/// Shapes: `d_input [H, W, C]`, `d_output [OH, OW, C * M]`, `weight [KH, KW, C, M]`.
///
/// # Panics
///
/// If a slice is shorter than its shape says.
pub fn depthwise_input_gradient<T: Element>(
    geometry: &Conv2dGeometry,
    d_output: Pixels<'_, T>,
    weight: &[T],
    d_input: &mut PixelsMut<'_, T>,
) {
    let [input, output] = [[d_input.channels, d_input.pitch()], [d_output.channels, d_output.pitch()]];
    depthwise_products(geometry, input, output, |output, input, tap| {
        d_input.data[input] += d_output.data[output] * weight[tap];
    });
}

/// The gradient of [`depthwise`] by its weight, added to `d_weight`.
///
/// Shapes: `input [H, W, C]`, `d_output [OH, OW, C * M]`, `d_weight [KH, KW, C, M]`.
///
/// # Panics
///
/// If a slice is shorter than its shape says.
pub fn depthwise_weight_gradient<T: Element>(
    geometry: &Conv2dGeometry,
    input: Pixels<'_, T>,
    d_output: Pixels<'_, T>,
    d_weight: &mut [T],
) {
    let [from, to] = [[input.channels, input.pitch()], [d_output.channels, d_output.pitch()]];
    depthwise_products(geometry, from, to, |output, from, tap| {
        d_weight[tap] += input.data[from] * d_output.data[output];
    });
}

/// What a pooling window computes of the pixels it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Pooling {
    /// The greatest value; padding never wins.
    Max,
    /// The mean of the pixels inside the map (TensorFlow; PyTorch's `count_include_pad=False`).
    Average,
    /// The mean with padding counted as zeros (PyTorch's default).
    AveragePadded,
}

/// Pooling over windows. Shapes: `input [H, W, C]`, `output [OH, OW, C]`.
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
    let [_, width] = geometry.input;
    let [_, columns] = geometry.output;
    for pixel in 0..geometry.output_pixels() {
        let (y, x) = (pixel / columns, pixel % columns);
        for c in 0..input.channels {
            let (mut sum, mut greatest, mut count) = (T::zero(), T::neg_infinity(), 0);
            for i in 0..geometry.kernel[0] {
                let Some(row) = geometry.source(0, y, i) else { continue };
                for j in 0..geometry.kernel[1] {
                    let Some(column) = geometry.source(1, x, j) else { continue };
                    let value = input.data[(row * width + column) * input.pitch() + c];
                    sum += value;
                    greatest = if value > greatest || value.is_nan() { value } else { greatest };
                    count += 1;
                }
            }
            output.data[pixel * output.pitch() + c] = match pooling {
                Pooling::Max => greatest,
                Pooling::Average => sum / T::from_f64(f64::from(count.max(1))),
                Pooling::AveragePadded => sum / T::from_f64(geometry.taps() as f64),
            };
        }
    }
}

/// `output[c] = mean over all pixels of input[c]`. Shapes: `input [P, C]`, `output [C]`.
///
/// # Panics
///
/// If `output` is shorter than the channel count.
pub fn global_average<T: Element>(input: Pixels<'_, T>, output: &mut [T]) {
    for (c, output) in output[..input.channels].iter_mut().enumerate() {
        let sum: T = (0..input.count()).map(|pixel| input.data[pixel * input.pitch() + c]).sum();
        *output = sum / T::from_f64(input.count() as f64);
    }
}

/// `values[i] = exp(values[i] - max) / sum over j of exp(values[j] - max)`, in place.
pub fn softmax<T: Element>(values: &mut [T]) {
    let greatest = values.iter().copied().fold(T::neg_infinity(), T::max);
    let mut sum = T::zero();
    for value in values.iter_mut() {
        *value = (*value - greatest).exp();
        sum += *value;
    }
    for value in values {
        *value /= sum;
    }
}
