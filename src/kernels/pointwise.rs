//! Pointwise (1x1) convolution: a matrix product over packed weights, with bias, residual and clamp fused.
//!
//! Differs from [`reference::pointwise`](super::reference::pointwise) in three ways: 1. outputs are computed in
//! register tiles, so an input is loaded once for up to three vectors of outputs; 2. rows come in pieces that stay in
//! the second-level cache while every panel of weights passes over them; 3. sums start from the bias. The input is read
//! in place: packing it costs more than it saves (measured 5 to 60 %).

use fearless_simd::prelude::*;

use super::panel::{Panel, Panels, row_pieces};
use super::tile::{Patches, panels_over_rows, with_tile};
use super::{BLOCK, Clamp, Pixels, PixelsMut, SimdLevel, Strides};

/// Input elements of a block of rows, before it is rounded up to whole tiles: half of a second-level cache.
const CACHED: usize = 128 * 1024;

/// Rows of a piece are a multiple of this: whole tiles of 28, 7, 6, 4 and 3 rows.
pub const TILES: usize = 84;

/// Weights `[inputs, outputs]` and bias packed for one SIMD level.
#[derive(Clone, Copy, Debug)]
pub struct PackedWeights<'a> {
    level: SimdLevel,
    inputs: usize,
    outputs: usize,
    blocked: bool,
    packed: &'a [f32],
    far: usize,
}

impl<'a> PackedWeights<'a> {
    /// Floats that [`PackedWeights::pack`] fills.
    #[must_use]
    pub fn len(level: SimdLevel, inputs: usize, outputs: usize) -> usize {
        Panels::of(level, outputs, false).packed_len(inputs)
    }

    /// Packs `weight`, whose pixels are the inputs and whose channels are the outputs, and `bias [outputs]` into
    /// `packed`, for channels-last outputs.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`] or `bias` than the outputs.
    #[must_use]
    pub fn pack(level: SimdLevel, weight: Pixels<'_, f32>, bias: Option<&[f32]>, packed: &'a mut [f32]) -> Self {
        Self::pack_for(level, false, weight, bias, packed)
    }

    /// As [`PackedWeights::pack`], for outputs in whole blocks of channels ([`Strides`](super::Strides)).
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn pack_blocked(
        level: SimdLevel,
        weight: Pixels<'_, f32>,
        bias: Option<&[f32]>,
        packed: &'a mut [f32],
    ) -> Self {
        Self::pack_for(level, true, weight, bias, packed)
    }

    fn pack_for(
        level: SimdLevel,
        blocked: bool,
        weight: Pixels<'_, f32>,
        bias: Option<&[f32]>,
        packed: &'a mut [f32],
    ) -> Self {
        let (inputs, outputs) = (weight.count(), weight.channels);
        let packed = &mut packed[..Self::len(level, inputs, outputs)];
        let panels = Panels::of(level, outputs, blocked);
        for rows in row_pieces(inputs) {
            panels.parts(inputs, packed).for_each(|mut panel| panel.pack_rows(weight, bias, rows.clone()));
        }
        Self { level, inputs, outputs, blocked, packed, far: 0 }
    }

    /// Multiplies the weights of each output by its factor, but not its bias, once [`PackedWeights::pack`] has packed
    /// them.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`].
    pub fn scale(level: SimdLevel, inputs: usize, factors: &[f32], packed: &mut [f32]) {
        Self::scale_for(level, false, inputs, factors, packed);
    }

    /// As [`PackedWeights::scale`], of what [`PackedWeights::pack_blocked`] has packed.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn scale_blocked(level: SimdLevel, inputs: usize, factors: &[f32], packed: &mut [f32]) {
        Self::scale_for(level, true, inputs, factors, packed);
    }

    fn scale_for(level: SimdLevel, blocked: bool, inputs: usize, factors: &[f32], packed: &mut [f32]) {
        let packed = &mut packed[..Self::len(level, inputs, factors.len())];
        Panels::of(level, factors.len(), blocked).parts(inputs, packed).for_each(|mut panel| panel.scale(factors));
    }

    /// The panels that [`PackedWeights::pack`] fills, for several threads.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`].
    pub fn panels_mut(
        level: SimdLevel,
        inputs: usize,
        outputs: usize,
        packed: &mut [f32],
    ) -> impl Iterator<Item = Panel<'_>> {
        let packed = &mut packed[..Self::len(level, inputs, outputs)];
        Panels::of(level, outputs, false).parts(inputs, packed)
    }

    /// Weights that [`PackedWeights::pack`] packed before, for the same level and sizes.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`].
    #[must_use]
    pub fn from_packed(level: SimdLevel, inputs: usize, outputs: usize, packed: &'a [f32]) -> Self {
        Self { level, inputs, outputs, blocked: false, packed: &packed[..Self::len(level, inputs, outputs)], far: 0 }
    }

    /// Weights that [`PackedWeights::pack_blocked`] packed before, for the same level and sizes.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedWeights::len`].
    #[must_use]
    pub fn from_packed_blocked(level: SimdLevel, inputs: usize, outputs: usize, packed: &'a [f32]) -> Self {
        Self { blocked: true, ..Self::from_packed(level, inputs, outputs, packed) }
    }

    /// Where a panel meets few tiles (a small map, a strip of a large one), the next panel is prefetched while one is
    /// computed; so is, with this, what lies `far` floats after it: weights of a later layer that reads faster than
    /// memory delivers.
    #[must_use]
    pub fn with_far(self, far: usize) -> Self {
        Self { far, ..self }
    }

    pub(super) fn far(&self) -> usize {
        self.far
    }

    pub(super) fn layout(&self) -> Panels {
        Panels::of(self.level, self.outputs, self.blocked)
    }

    /// Refuses an output in the layout that the weights are not packed for.
    pub(super) fn check_layout(&self, output: &PixelsMut<'_, f32>) {
        let whole = output.strides.pixel.is_multiple_of(BLOCK);
        assert!(if self.blocked { whole } else { output.strides.block == BLOCK }, "weights packed for another layout");
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
/// Shapes: `input [M, K]`, `output [M, N]`, `residual [M, N]`, packed weights of `K` inputs and `N` outputs. In a
/// blocked output the lanes that the last vector has beyond `N` are written too.
///
/// # Panics
///
/// If sizes or channel counts differ, the weights are packed for another layout of the output, or this machine cannot
/// run the level they are packed for.
pub fn pointwise(
    weights: &PackedWeights<'_>,
    input: Pixels<'_, f32>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    assert_eq!((input.size, input.channels), (output.size, weights.inputs), "input does not fit");
    assert_eq!(output.channels, weights.outputs, "output does not fit");
    if let Some(residual) = residual {
        assert_eq!((residual.size, residual.channels), (output.size, output.channels), "residual does not fit");
    }
    weights.check_layout(output);
    with_tile!(weights.level, run(*weights, input, residual, clamp, output));
}

#[inline(always)]
fn run<S: Simd, V: SimdFloat<S, Element = f32>, const R1: usize, const R2: usize, const R3: usize>(
    simd: S,
    weights: PackedWeights<'_>,
    input: Pixels<'_, f32>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    let [rows, columns] = output.size;
    let flat = [Some(input.strides), residual.map(|map| map.strides), Some(output.strides)];
    let flat = flat.into_iter().flatten().all(|strides| strides.is_flat(columns));
    // Rows without gaps are one long row, cut into pieces; others are taken several at a time.
    let (all, unit) = if flat { (rows * columns, 1) } else { (rows, columns) };
    let pixels = (CACHED / input.channels.max(1)).max(1).next_multiple_of(TILES);
    let most = pixels.div_ceil(unit.max(1)).max(1);
    let mut first = 0;
    while first < all {
        let count = most.min(all - first);
        let size = if flat { [1, count] } else { [count, columns] };
        let start = |strides: Strides| first * if flat { strides.pixel } else { strides.row };
        let residual = residual.map(|map| Pixels { data: &map.data[start(map.strides)..], size, ..map });
        let patches = Patches::pixels(Pixels { data: &input.data[start(input.strides)..], size, ..input });
        let data = &mut output.data[start(output.strides)..];
        let mut output = PixelsMut { data, size, ..*output };
        panels_over_rows::<S, V, R1, R2, R3>(simd, weights, patches, residual, clamp, &mut output);
        first += count;
    }
}
