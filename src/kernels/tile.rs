//! The register tile: a small matrix product whose sums never leave the registers.
//!
//! Pointwise and dense convolution both end here. Written once for every SIMD level; what differs per level is the
//! vector and how many rows go with it, and that choice stands in [`with_tile`] and [`Panels`] alone.
//!
//! Weights are packed in *panels* of one to three vectors of output channels: first the panel's bias, then one row
//! of weights per input. A tile starts its sums from the bias and walks the panel once, front to back:
//!
//! ```text
//! for k in inputs:                       one row of the panel: 1 to 3 loads
//!     for row in rows:                   one broadcast
//!         sums[row] += input[row, k] * panel[k]
//! ```

use fearless_simd::prelude::*;

use super::{Clamp, Pixels, PixelsMut, SimdLevel};

/// The sums of a tile of `ROWS` pixels by `VECTORS` vectors of output channels.
type Sums<V, const ROWS: usize, const VECTORS: usize> = [[V; VECTORS]; ROWS];

/// Calls `$run::<S, V, R1, R2, R3>(simd, ..)` with the level's token `S`, its vector `V` of `$lanes` floats, and the
/// rows of a tile of 1, 2 and 3 vectors.
///
/// A tile of `R x N` holds `R * N` sums, `N` weights and a broadcast in registers: at most 31 of 32 (AVX-512, NEON)
/// or 15 of 16, one less without fused multiply-add, where the product needs a place. It wants at least 8 sums in
/// flight (two multiply-adds a cycle, four cycles each).
///
/// - AVX-512: 7 rows, which divide every map of a 224 input (112, 56, 28, 14, 7): 21 sums and 4 operands.
/// - AVX2: 6 x 2, 12 sums and 3 operands; 3 x 3 for an odd number of vectors, as 4 x 3 spills.
/// - 128 bits without fused multiply-add: two rows fewer.
macro_rules! with_tile {
    ($level:expr, $lanes:expr, $run:ident($($argument:expr),* $(,)?)) => {
        match $level.token() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx512(simd)) if $lanes == 16 => {
                $run::<_, fearless_simd::f32x16<_>, 7, 7, 7>(simd, $($argument),*)
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx512(simd)) => {
                $run::<_, fearless_simd::f32x8<_>, 7, 7, 7>(simd, $($argument),*)
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx2(simd)) => {
                $run::<_, fearless_simd::f32x8<_>, 8, 6, 3>(simd, $($argument),*)
            }
            // SSE4.2 adds nothing these loops use.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(level @ (fearless_simd::Level::Sse2(_) | fearless_simd::Level::Sse4_2(_))) => {
                let simd = level.as_sse2().expect("SSE4.2 includes SSE2");
                $run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, $($argument),*)
            }
            #[cfg(target_arch = "aarch64")]
            Some(fearless_simd::Level::Neon(simd)) => {
                $run::<_, fearless_simd::f32x4<_>, 8, 8, 7>(simd, $($argument),*)
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Some(fearless_simd::Level::WasmSimd128(simd)) => {
                $run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, $($argument),*)
            }
            Some(fearless_simd::Level::Fallback(simd)) => {
                $run::<_, fearless_simd::f32x4<_>, 4, 4, 2>(simd, $($argument),*)
            }
            _ => unreachable!("this machine cannot run {}", $level),
        }
    };
}
pub(super) use with_tile;

/// Runs `$tile::<S, V, ROWS, VECTORS>(..)` for a row count known only at run time, up to `$most`.
macro_rules! with_rows {
    ($rows:expr, $most:expr, $tile:ident::<$s:ty, $v:ty, _, $vectors:ident>($($argument:expr),* $(,)?)) => {
        with_rows!(@ $rows, $most, $tile, $s, $v, $vectors, ($($argument),*), 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $most:expr, $tile:ident, $s:ty, $v:ty, $vectors:ident, $arguments:tt, $($n:literal)*) => {
        match $rows {
            $($n if $n <= $most => with_rows!(@call $tile, $s, $v, $n, $vectors, $arguments),)*
            _ => unreachable!("a tile has 1 to {} rows", $most),
        }
    };
    (@call $tile:ident, $s:ty, $v:ty, $n:literal, $vectors:ident, ($($argument:expr),*)) => {
        $tile::<$s, $v, $n, $vectors>($($argument),*)
    };
}

/// How a level cuts output channels into panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panels {
    /// Floats of a vector.
    lanes: usize,
    /// Vectors of a panel, as long as enough are left.
    vectors: usize,
}

impl Panels {
    pub(super) fn of(level: SimdLevel, outputs: usize) -> Self {
        match level {
            // A 512-bit vector would be mostly padding on 8, 24, 40 or 56 channels; 256-bit ones reach nine tenths of
            // its speed, so they win from one padded lane in ten on.
            SimdLevel::Avx512 if (1..=8).contains(&(outputs % 16)) && outputs < 80 => Self { lanes: 8, vectors: 3 },
            SimdLevel::Avx512 => Self { lanes: 16, vectors: 3 },
            SimdLevel::Avx2 => Self { lanes: 8, vectors: 2 },
            SimdLevel::Neon => Self { lanes: 4, vectors: 3 },
            _ => Self { lanes: 4, vectors: 2 },
        }
    }

    pub(super) fn lanes(self) -> usize {
        self.lanes
    }

    /// Vectors of the next panel when `outputs` channels are left.
    fn next(self, outputs: usize) -> usize {
        match outputs.div_ceil(self.lanes) {
            // Three rather than two and a lonely one, which has too few sums in flight.
            3 => 3,
            left => left.min(self.vectors),
        }
    }

    /// Floats of the packed weights: every panel's bias and rows, the last vector filled up with zeros.
    pub(super) fn packed_len(self, inputs: usize, outputs: usize) -> usize {
        (inputs + 1) * outputs.next_multiple_of(self.lanes)
    }

    /// Packs `weight [inputs, outputs]` and `bias [outputs]` (zeros if `None`).
    pub(super) fn pack(self, weight: Pixels<'_, f32>, bias: Option<&[f32]>, packed: &mut [f32]) {
        let outputs = weight.channels;
        let packed = &mut packed[..self.packed_len(weight.count, outputs)];
        let (mut first, mut rest) = (0, packed);
        while first < outputs {
            let width = self.next(outputs - first) * self.lanes;
            let columns = width.min(outputs - first);
            let (panel, tail) = rest.split_at_mut((weight.count + 1) * width);
            let (head, rows) = panel.split_at_mut(width);
            head.fill(0.0);
            if let Some(bias) = bias {
                head[..columns].copy_from_slice(&bias[first..][..columns]);
            }
            for (k, row) in rows.chunks_exact_mut(width).enumerate() {
                row[..columns].copy_from_slice(&weight.data[k * weight.pitch + first..][..columns]);
                row[columns..].fill(0.0);
            }
            (first, rest) = (first + width, tail);
        }
    }
}

/// What the outputs of one row read: neighbouring outputs `step` apart, each `kernel_rows` times `segments` runs of
/// `depth` neighbours. A pixel of a pointwise convolution is the smallest patch: one run.
#[derive(Clone, Copy)]
pub(super) struct Patches<'a> {
    /// The rows of a ring, one after the other, then a row of zeros.
    pub(super) data: &'a [f32],
    pub(super) kernel_rows: usize,
    pub(super) segments: usize,
    pub(super) segment_step: usize,
    pub(super) depth: usize,
    pub(super) step: usize,
    /// Floats of a row of the ring.
    pub(super) row_len: usize,
    /// Rows of the ring, and the one that the first kernel row reads.
    pub(super) slots: usize,
    pub(super) slot: usize,
    /// Rows from one kernel row to the next.
    pub(super) dilation: usize,
    /// The map's row that the first kernel row reads (it wraps around above the map), and the map's height.
    pub(super) top: usize,
    pub(super) height: usize,
}

impl<'a> Patches<'a> {
    /// Pixels of `channels`, `pitch` apart.
    pub(super) fn pixels(data: &'a [f32], channels: usize, pitch: usize) -> Self {
        Self {
            data,
            kernel_rows: 1,
            segments: 1,
            segment_step: 0,
            depth: channels,
            step: pitch,
            row_len: 0,
            slots: 1,
            slot: 0,
            dilation: 1,
            top: 0,
            height: 1,
        }
    }

    /// Where kernel row `tap` starts: in the row of zeros if it is in the padding.
    #[inline(always)]
    fn row(&self, tap: usize) -> usize {
        let offset = tap * self.dilation;
        let inside = self.top.wrapping_add(offset) < self.height;
        let slot = self.slot + offset;
        let slot = if slot < self.slots { slot } else { slot - self.slots };
        (if inside { slot } else { self.slots }) * self.row_len
    }
}

/// All panels, one after the other, over the outputs of one row.
#[expect(clippy::too_many_arguments, reason = "those of the convolution and the level's token")]
pub(super) fn panels_over_rows<
    S: Simd,
    V: SimdFloat<S, Element = f32>,
    const R1: usize,
    const R2: usize,
    const R3: usize,
>(
    simd: S,
    panels: Panels,
    packed: &[f32],
    patches: Patches<'_>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    let inputs = patches.kernel_rows * patches.segments * patches.depth;
    let (mut column, mut rest) = (0, packed);
    while column < output.channels {
        let channels = output.channels - column;
        let vectors = panels.next(channels);
        let (panel, tail) = rest.split_at((inputs + 1) * vectors * V::LEN);
        let mut output = PixelsMut { data: &mut output.data[column..], channels, ..*output };
        let residual = residual.map(|r| Pixels { data: &r.data[column..], ..r });
        match vectors {
            1 => panel_over_rows::<S, V, R1, 1>(simd, panel, patches, residual, clamp, &mut output),
            2 => panel_over_rows::<S, V, R2, 2>(simd, panel, patches, residual, clamp, &mut output),
            _ => panel_over_rows::<S, V, R3, 3>(simd, panel, patches, residual, clamp, &mut output),
        }
        (column, rest) = (column + vectors * V::LEN, tail);
    }
}

fn panel_over_rows<S: Simd, V: SimdFloat<S, Element = f32>, const MOST: usize, const VECTORS: usize>(
    simd: S,
    panel: &[f32],
    patches: Patches<'_>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    simd.vectorize(
        #[inline(always)]
        || {
            for_each_tile(
                output.count,
                MOST,
                #[inline(always)]
                |first, rows| {
                    with_rows!(
                        rows,
                        MOST,
                        tile::<S, V, _, VECTORS>(simd, panel, first, patches, residual, clamp, output)
                    );
                },
            );
        },
    );
}

#[inline(always)]
fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    panel: &[f32],
    first: usize,
    patches: Patches<'_>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    let (width, depth) = (VECTORS * V::LEN, patches.depth);
    let (bias, mut panel) = panel.split_at(width);
    let mut sums = [load::<S, V, VECTORS>(simd, bias); ROWS];
    for i in 0..patches.kernel_rows {
        let mut at = patches.row(i) + first * patches.step;
        for _ in 0..patches.segments {
            let (part, rest) = panel.split_at(depth * width);
            let mut rows = [patches.data; ROWS];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = &patches.data[at + r * patches.step..][..depth];
            }
            sums = accumulate(simd, sums, rows, part);
            panel = rest;
            at += patches.segment_step;
        }
    }
    let residual = residual.map(|r| (&r.data[first * r.pitch..], r.pitch));
    let columns = width.min(output.channels);
    store(simd, sums, residual, clamp, columns, &mut output.data[first * output.pitch..], output.pitch);
}

/// Loads `VECTORS` neighbouring vectors.
#[inline(always)]
fn load<S: Simd, V: SimdFloat<S, Element = f32>, const VECTORS: usize>(simd: S, from: &[f32]) -> [V; VECTORS] {
    let from = &from[..VECTORS * V::LEN];
    let mut vectors = [V::splat(simd, 0.0); VECTORS];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = V::from_slice(simd, &from[v * V::LEN..][..V::LEN]);
    }
    vectors
}

/// Inputs per turn of the loop in [`accumulate`]. One at a time, every row's address is computed anew and checked: 31
/// instructions for the 12 multiply-adds of a 6 x 2 tile, more than a core shared by two threads can decode in time.
const STEP: usize = 4;

/// Sums that keep two multiply-adds a cycle of four cycles each busy.
const SUMS_IN_FLIGHT: usize = 8;

/// `sums[r] += sum over k of rows[r][k] * panel[k]`; every row is as long as the panel has rows.
#[inline(always)]
fn accumulate<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: Sums<V, ROWS, VECTORS>,
    rows: [&[f32]; ROWS],
    panel: &[f32],
) -> Sums<V, ROWS, VECTORS> {
    let width = VECTORS * V::LEN;
    let depth = rows[0].len();
    // Small tiles are rare, and not worth the code.
    let steps = if ROWS * VECTORS >= SUMS_IN_FLIGHT { depth / STEP } else { 0 };
    let rest = depth - steps * STEP;
    let mut blocks: [&[[f32; STEP]]; ROWS] = [&[]; ROWS];
    let mut tails: [&[f32]; ROWS] = [&[]; ROWS];
    for ((row, block), tail) in rows.iter().zip(&mut blocks).zip(&mut tails) {
        let (whole, _) = row.as_chunks();
        (*block, *tail) = (&whole[..steps], &row[steps * STEP..][..rest]);
    }
    let (panel, panel_tail) = panel.split_at(steps * STEP * width);
    for (k, weights) in (0..steps).zip(panel.chunks_exact(STEP * width)) {
        for step in 0..STEP {
            let weights: [V; VECTORS] = load(simd, &weights[step * width..][..width]);
            for (sums, block) in sums.iter_mut().zip(&blocks) {
                multiply_add(simd, sums, block[k][step], weights);
            }
        }
    }
    for (k, weights) in (0..rest).zip(panel_tail.chunks_exact(width)) {
        let weights: [V; VECTORS] = load(simd, weights);
        for (sums, tail) in sums.iter_mut().zip(&tails) {
            multiply_add(simd, sums, tail[k], weights);
        }
    }
    sums
}

/// `sums += input * weights`
#[inline(always)]
fn multiply_add<S: Simd, V: SimdFloat<S, Element = f32>, const VECTORS: usize>(
    simd: S,
    sums: &mut [V; VECTORS],
    input: f32,
    weights: [V; VECTORS],
) {
    let input = V::splat(simd, input);
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum = input.mul_add(weight, *sum);
    }
}

/// Adds the residual, clamps, and stores `columns` channels of every row, `pitch` apart.
#[inline(always)]
fn store<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: Sums<V, ROWS, VECTORS>,
    residual: Option<(&[f32], usize)>,
    clamp: Clamp<f32>,
    columns: usize,
    output: &mut [f32],
    pitch: usize,
) {
    let (low, high) = (V::splat(simd, clamp.low), V::splat(simd, clamp.high));
    let width = VECTORS * V::LEN;
    // Whole vectors in loops of their own, short enough to be unrolled: the sums go from register to memory.
    match residual {
        None if columns == width => {
            for (r, sums) in sums.iter().enumerate() {
                let output = &mut output[r * pitch..][..width];
                for (v, sum) in sums.iter().enumerate() {
                    high.min(low.max(*sum)).store_slice(&mut output[v * V::LEN..][..V::LEN]);
                }
            }
        }
        Some((residual, residual_pitch)) if columns == width => {
            for (r, sums) in sums.iter().enumerate() {
                let output = &mut output[r * pitch..][..width];
                let residual = &residual[r * residual_pitch..][..width];
                for (v, sum) in sums.iter().enumerate() {
                    let sum = *sum + V::from_slice(simd, &residual[v * V::LEN..][..V::LEN]);
                    high.min(low.max(sum)).store_slice(&mut output[v * V::LEN..][..V::LEN]);
                }
            }
        }
        _ => {
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let at = v * V::LEN..columns.min((v + 1) * V::LEN);
                    let mut sum = *sum;
                    if let Some((residual, pitch)) = residual {
                        let mut part = V::splat(simd, 0.0);
                        part.as_mut_slice()[..at.len()].copy_from_slice(&residual[r * pitch..][at.clone()]);
                        sum += part;
                    }
                    let sum = high.min(low.max(sum));
                    output[r * pitch..][at.clone()].copy_from_slice(&sum.as_slice()[..at.len()]);
                }
            }
        }
    }
}

/// Cuts `count` rows into tiles of at most `most`, as equal as can be: a lonely last row would run at a quarter of
/// the speed. Calls `tile(first, rows)`.
#[inline(always)]
fn for_each_tile(count: usize, most: usize, mut tile: impl FnMut(usize, usize)) {
    let tiles = count.div_ceil(most);
    let mut first = 0;
    for left in (1..=tiles).rev() {
        let rows = (count - first).div_ceil(left);
        tile(first, rows);
        first += rows;
    }
}
