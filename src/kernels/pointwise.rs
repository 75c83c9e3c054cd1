//! Pointwise (1x1) convolution: a matrix product over packed weights, with bias, residual and clamp fused.
//!
//! Differs from [`reference::pointwise`](super::reference::pointwise) in three ways: 1. outputs are computed in
//! register tiles, so an input is loaded once for up to three vectors of outputs; 2. rows come in blocks of at least
//! 84, which stay in the first-level cache (with many inputs, the second) while every panel of weights passes over
//! them; 3. sums start from the bias. The input is read in place: packing it costs more than it saves (measured 5 to
//! 60 %).

use fearless_simd::prelude::*;

use super::tile::{Panels, Patches, panels_over_rows, with_tile};
use super::{Clamp, Pixels, PixelsMut, SimdLevel};

/// Input elements of a block of rows, before it is rounded up to whole tiles: 24 KiB of a first-level cache of 32.
const BLOCK: usize = 6 * 1024;

/// Weights `[inputs, outputs]` and bias packed for one SIMD level.
#[derive(Clone, Copy, Debug)]
pub struct PackedWeights<'a> {
    level: SimdLevel,
    inputs: usize,
    outputs: usize,
    packed: &'a [f32],
}

impl<'a> PackedWeights<'a> {
    /// Floats that [`PackedWeights::pack`] fills.
    #[must_use]
    pub fn len(level: SimdLevel, inputs: usize, outputs: usize) -> usize {
        Panels::of(level, outputs).packed_len(inputs)
    }

    /// Packs `weight`, whose pixels are the inputs and whose channels are the outputs, and `bias [outputs]` into
    /// `packed`.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`] or `bias` than the outputs.
    #[must_use]
    pub fn pack(level: SimdLevel, weight: Pixels<'_, f32>, bias: Option<&[f32]>, packed: &'a mut [f32]) -> Self {
        let (inputs, outputs) = (weight.count, weight.channels);
        let packed = &mut packed[..Self::len(level, inputs, outputs)];
        Panels::of(level, outputs).pack(weight, bias, packed);
        Self { level, inputs, outputs, packed }
    }

    /// Weights that [`PackedWeights::pack`] packed before, for the same level and sizes.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`].
    #[must_use]
    pub fn from_packed(level: SimdLevel, inputs: usize, outputs: usize, packed: &'a [f32]) -> Self {
        Self { level, inputs, outputs, packed: &packed[..Self::len(level, inputs, outputs)] }
    }

    pub(super) fn level(&self) -> SimdLevel {
        self.level
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn packed(&self) -> &'a [f32] {
        self.packed
    }
}

/// `output[m, n] = clamp(bias[n] + sum over k of input[m, k] * weight[k, n] + residual[m, n])`
///
/// Shapes: `input [M, K]`, `output [M, N]`, `residual [M, N]`, packed weights of `K` inputs and `N` outputs.
///
/// # Panics
///
/// If pixel or channel counts differ, or this machine cannot run the level the weights are packed for.
pub fn pointwise(
    weights: &PackedWeights<'_>,
    input: Pixels<'_, f32>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    assert_eq!((input.count, input.channels), (output.count, weights.inputs), "input does not fit");
    assert_eq!(output.channels, weights.outputs, "output does not fit");
    if let Some(residual) = residual {
        assert_eq!((residual.count, residual.channels), (output.count, output.channels), "residual does not fit");
    }
    let panels = Panels::of(weights.level, weights.outputs);
    with_tile!(weights.level, panels.lanes(), run(panels, weights.packed, input, residual, clamp, output));
}

#[inline(always)]
fn run<S: Simd, V: SimdFloat<S, Element = f32>, const R1: usize, const R2: usize, const R3: usize>(
    simd: S,
    panels: Panels,
    packed: &[f32],
    input: Pixels<'_, f32>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    let depth = input.channels;
    // A multiple of 84 rows is whole tiles of 7, 6, 4 and 3.
    let block = (BLOCK / depth.max(1)).max(1).next_multiple_of(84).min(input.count.max(1));
    let mut first = 0;
    while first < input.count {
        let rows = block.min(input.count - first);
        let input = Pixels { data: &input.data[first * input.pitch..], count: rows, ..input };
        let residual = residual.map(|r| Pixels { data: &r.data[first * r.pitch..], count: rows, ..r });
        let patches = Patches::pixels(input.data, input.channels, input.pitch);
        let data = &mut output.data[first * output.pitch..];
        let mut output = PixelsMut { data, count: rows, channels: output.channels, pitch: output.pitch };
        panels_over_rows::<S, V, R1, R2, R3>(simd, panels, packed, patches, residual, clamp, &mut output);
        first += rows;
    }
}
