//! One row times a matrix: a linear layer for a single image.
//!
//! Every weight is used once, so the kernel runs at the speed of memory and packing would only add to it. Differs from
//! [`reference::pointwise`](super::reference::pointwise) in one way: weights are read front to back, [`DEPTH`] rows of
//! them side by side, and added to the outputs, which stay in the first-level cache.

use fearless_simd::prelude::*;

use super::{Clamp, SimdLevel};

/// Rows of weights per pass over the outputs: as many streams as prefetchers follow, and as few reloads of the sums.
const DEPTH: usize = 8;

/// `output[n] = clamp(bias[n] + sum over k of input[k] * weight[k, n])`
///
/// Shapes: `input [K]`, `weight [K, N]`, `bias [N]` (zeros if `None`), `output [N]`.
///
/// # Panics
///
/// If `weight` or `bias` does not fit, or this machine cannot run `level`.
pub fn linear(
    level: SimdLevel,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    clamp: Clamp<f32>,
    output: &mut [f32],
) {
    assert_eq!(weight.len(), input.len() * output.len(), "weight does not fit");
    if output.is_empty() {
        return;
    }
    match bias {
        Some(bias) => output.copy_from_slice(bias),
        None => output.fill(0.0),
    }
    let level = level.token().unwrap_or_else(|| unreachable!("this machine cannot run {level}"));
    fearless_simd::dispatch!(level, simd => simd.vectorize(
        #[inline(always)]
        || {
            let width = output.len();
            let (inputs, last_inputs) = input.as_chunks::<DEPTH>();
            let (blocks, last_rows) = weight.split_at(inputs.len() * DEPTH * width);
            for (input, rows) in inputs.iter().zip(blocks.chunks_exact(DEPTH * width)) {
                add_rows(simd, input, rows, output);
            }
            for (input, row) in last_inputs.iter().zip(last_rows.chunks_exact(width)) {
                add_rows(simd, &[*input], row, output);
            }
            for value in output.iter_mut() {
                *value = clamp.apply(*value);
            }
        },
    ));
}

/// `output[n] += sum over k of input[k] * rows[k, n]`
#[inline(always)]
fn add_rows<S: Simd, const ROWS: usize>(simd: S, input: &[f32; ROWS], rows: &[f32], output: &mut [f32]) {
    let (width, lanes) = (output.len(), S::f32s::LEN);
    let mut parts = [rows; ROWS];
    for (k, part) in parts.iter_mut().enumerate() {
        *part = &rows[k * width..][..width];
    }
    let factors = input.map(|x| S::f32s::splat(simd, x));
    let whole = width / lanes * lanes;
    for at in (0..whole).step_by(lanes) {
        let mut sum = S::f32s::from_slice(simd, &output[at..][..lanes]);
        for (factor, part) in factors.iter().zip(&parts) {
            sum = S::f32s::from_slice(simd, &part[at..][..lanes]).mul_add(*factor, sum);
        }
        sum.store_slice(&mut output[at..][..lanes]);
    }
    for at in whole..width {
        for (x, part) in input.iter().zip(&parts) {
            output[at] += x * part[at];
        }
    }
}
