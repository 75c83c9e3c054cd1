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

use super::ring::RingRows;
use super::{Clamp, Pixels, PixelsMut, SimdLevel};

/// Calls `$run::<S, V, R1, R2, R3>(simd, ..)` with the level's token `S`, its vector `V` of `$lanes` floats, and the
/// rows of a tile of 1, 2 and 3 vectors.
///
/// A tile of `R x N` holds `R * N` sums, `N` weights and a broadcast in registers: at most 31 of 32 (AVX-512, NEON)
/// or 15 of 16, one less without fused multiply-add, where the product needs a place. It wants at least 8 sums in
/// flight (two multiply-adds a cycle, four cycles each).
///
/// - AVX-512: 7 rows, which divide every map of a 224 input (112, 56, 28, 14, 7): 21 sums and 4 operands.
/// - AVX2: 6 x 2, 12 sums and 3 operands; 3 x 3 for an odd number of vectors, as 4 x 3 spills.
/// - 128 bits without fused multiply-add: 4 x 2.
macro_rules! with_tile {
    ($level:expr, $lanes:expr, $run:ident($($argument:expr),* $(,)?)) => {
        match ($level.token(), $lanes) {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(fearless_simd::Level::Avx512(simd)), 16) => {
                $run::<_, fearless_simd::f32x16<_>, 7, 7, 7>(simd, $($argument),*)
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(level @ (fearless_simd::Level::Avx512(_) | fearless_simd::Level::Avx2(_))), _) => {
                let simd = level.as_avx2().expect("AVX-512 includes AVX2");
                $run::<_, fearless_simd::f32x8<_>, 8, 6, 3>(simd, $($argument),*)
            }
            // SSE4.2 adds nothing these loops use.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(level @ (fearless_simd::Level::Sse2(_) | fearless_simd::Level::Sse4_2(_))), _) => {
                let simd = level.as_sse2().expect("SSE4.2 includes SSE2");
                $run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, $($argument),*)
            }
            #[cfg(target_arch = "aarch64")]
            (Some(fearless_simd::Level::Neon(simd)), _) => {
                $run::<_, fearless_simd::f32x4<_>, 8, 8, 7>(simd, $($argument),*)
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (Some(fearless_simd::Level::WasmSimd128(simd)), _) => {
                $run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, $($argument),*)
            }
            (Some(fearless_simd::Level::Fallback(simd)), _) => {
                $run::<_, fearless_simd::f32x4<_>, 4, 4, 2>(simd, $($argument),*)
            }
            _ => unreachable!("this machine cannot run {}", $level),
        }
    };
}
pub(super) use with_tile;

/// How a level cuts output channels into panels of vectors.
///
/// When the lanes do not divide the channels, the last vector ends with the last channel and repeats some of the one
/// before; only fewer channels than lanes leave lanes empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panels {
    /// Floats of a vector.
    lanes: usize,
    /// Vectors of a panel, as long as enough are left.
    vectors: usize,
    /// Output channels.
    outputs: usize,
}

impl Panels {
    pub(super) fn of(level: SimdLevel, outputs: usize) -> Self {
        let (lanes, vectors) = match level {
            // The last 512-bit vector would be half repeats or more: 8, 24, 40, 56 or 72 channels. 256-bit ones reach
            // nine tenths of its speed, so they win from one lane in ten on.
            SimdLevel::Avx512 if (1..=8).contains(&(outputs % 16)) && outputs < 80 => (8, 2),
            SimdLevel::Avx512 => (16, 3),
            SimdLevel::Avx2 => (8, 2),
            SimdLevel::Neon => (4, 3),
            _ => (4, 2),
        };
        Self { lanes, vectors, outputs }
    }

    pub(super) fn lanes(self) -> usize {
        self.lanes
    }

    /// Vectors of the next panel when `left` are left.
    fn next(self, left: usize) -> usize {
        match left {
            // No lonely last vector, which has too few sums in flight: three at once, or two and two.
            3 => 3,
            4 => 2,
            _ => left.min(self.vectors),
        }
    }

    /// The first channel of a vector.
    fn channel(self, vector: usize) -> usize {
        (vector * self.lanes).min(self.outputs.saturating_sub(self.lanes))
    }

    fn total(self) -> usize {
        self.outputs.div_ceil(self.lanes)
    }

    /// Floats of the packed weights: every panel's bias and rows.
    pub(super) fn packed_len(self, inputs: usize) -> usize {
        (inputs + 1) * self.total() * self.lanes
    }

    /// Packs `weight [inputs, outputs]` and `bias [outputs]` (zeros if `None`).
    pub(super) fn pack(self, weight: Pixels<'_, f32>, bias: Option<&[f32]>, packed: &mut [f32]) {
        let (mut vector, mut rest) = (0, packed);
        let columns = self.lanes.min(self.outputs);
        while vector < self.total() {
            let vectors = self.next(self.total() - vector);
            let (panel, tail) = rest.split_at_mut((weight.count + 1) * vectors * self.lanes);
            let mut rows = panel.chunks_exact_mut(self.lanes);
            for k in 0..=weight.count {
                for (v, row) in rows.by_ref().take(vectors).enumerate() {
                    let channel = self.channel(vector + v);
                    row[columns..].fill(0.0);
                    let from = match k.checked_sub(1) {
                        Some(k) => Some(&weight.data[k * weight.pitch..]),
                        None => bias,
                    };
                    match from {
                        Some(from) => row[..columns].copy_from_slice(&from[channel..][..columns]),
                        None => row[..columns].fill(0.0),
                    }
                }
            }
            (vector, rest) = (vector + vectors, tail);
        }
    }
}

/// What the outputs of one row read: neighbouring outputs `step` apart, each `kernel_rows` times `segments` runs of
/// `depth` neighbours. A pixel of a pointwise convolution is the smallest patch: one run.
#[derive(Clone, Copy)]
pub(super) struct Patches<'a> {
    /// The ring's rows, `row_len` apart.
    pub(super) data: &'a [f32],
    pub(super) row_len: usize,
    pub(super) rows: RingRows,
    pub(super) kernel_rows: usize,
    pub(super) segments: usize,
    pub(super) segment_step: usize,
    pub(super) depth: usize,
    pub(super) step: usize,
}

impl<'a> Patches<'a> {
    /// Pixels of `channels`, `pitch` apart.
    pub(super) fn pixels(data: &'a [f32], channels: usize, pitch: usize) -> Self {
        Self {
            data,
            row_len: 0,
            rows: RingRows::ONE,
            kernel_rows: 1,
            segments: 1,
            segment_step: 0,
            depth: channels,
            step: pitch,
        }
    }
}

/// All panels, one after the other, over the outputs of one row.
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
    let (mut vector, mut rest) = (0, packed);
    while vector < panels.total() {
        let vectors = panels.next(panels.total() - vector);
        let (weights, tail) = rest.split_at((inputs + 1) * vectors * V::LEN);
        let first = panels.channel(vector);
        let panel = Panel { weights, patches, clamp, last: panels.channel(vector + vectors - 1) - first };
        let mut output = PixelsMut { data: &mut output.data[first..], channels: panels.outputs - first, ..*output };
        let residual = residual.map(|r| Pixels { data: &r.data[first..], ..r });
        match vectors {
            1 => panel.over_rows::<S, V, R1, 1>(simd, residual, &mut output),
            2 => panel.over_rows::<S, V, R2, 2>(simd, residual, &mut output),
            _ => panel.over_rows::<S, V, R3, 3>(simd, residual, &mut output),
        }
        (vector, rest) = (vector + vectors, tail);
    }
}

/// What all tiles of a panel share.
#[derive(Clone, Copy)]
struct Panel<'a> {
    /// Bias, then a row per input.
    weights: &'a [f32],
    patches: Patches<'a>,
    clamp: Clamp<f32>,
    /// Channel of the last vector, counted from the first.
    last: usize,
}

impl Panel<'_> {
    /// Tiles of `MOST` rows, then of 4, 2 or 1, which may repeat rows of the one before: the output is the same, and
    /// tiles of every size would be twice the code.
    fn over_rows<S: Simd, V: SimdFloat<S, Element = f32>, const MOST: usize, const VECTORS: usize>(
        &self,
        simd: S,
        residual: Option<Pixels<'_, f32>>,
        output: &mut PixelsMut<'_, f32>,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let mut first = 0;
                while first < output.count {
                    let left = output.count - first;
                    // Two fours rather than a whole tile and a small rest, which has too few sums in flight.
                    let wanted = if left > MOST && left < 2 * MOST { left.div_ceil(2) } else { left.min(MOST) };
                    let rows = match wanted {
                        1 | 2 => wanted,
                        3 | 4 if MOST > 4 && output.count >= 4 => 4,
                        _ if output.count >= MOST => MOST,
                        4.. => 4,
                        _ => 2,
                    };
                    first = first.min(output.count - rows);
                    match rows {
                        1 => self.tile::<S, V, 1, VECTORS>(simd, first, residual, output),
                        2 => self.tile::<S, V, 2, VECTORS>(simd, first, residual, output),
                        4 if MOST > 4 => self.tile::<S, V, 4, VECTORS>(simd, first, residual, output),
                        _ => self.tile::<S, V, MOST, VECTORS>(simd, first, residual, output),
                    }
                    first += rows;
                }
            },
        );
    }

    /// `ROWS` pixels by `VECTORS` vectors of output channels.
    #[inline(always)]
    fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        first: usize,
        residual: Option<Pixels<'_, f32>>,
        output: &mut PixelsMut<'_, f32>,
    ) {
        let (width, patches) = (VECTORS * V::LEN, self.patches);
        let (bias, mut weights) = self.weights.split_at(width);
        let mut sums = [[V::splat(simd, 0.0); VECTORS]; ROWS];
        unroll!(v < VECTORS, 3, {
            let bias = V::from_slice(simd, &bias[v * V::LEN..][..V::LEN]);
            unroll!(r < ROWS, 8, { sums[r][v] = bias });
        });
        for i in 0..patches.kernel_rows {
            let mut at = patches.rows.place(i) * patches.row_len + first * patches.step;
            for _ in 0..patches.segments {
                let (segment, rest) = weights.split_at(patches.depth * width);
                let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
                unroll!(r < ROWS, 8, { rows[r] = &patches.data[at + r * patches.step..][..patches.depth] });
                (weights, at) = (rest, at + patches.segment_step);
                for (k, weights) in (0..patches.depth).zip(segment.chunks_exact(width)) {
                    unroll!(r < ROWS, 8, {
                        let input = V::splat(simd, rows[r][k]);
                        unroll!(v < VECTORS, 3, {
                            let weight = V::from_slice(simd, &weights[v * V::LEN..][..V::LEN]);
                            sums[r][v] = input.mul_add(weight, sums[r][v]);
                        });
                    });
                }
            }
        }
        if output.channels < V::LEN {
            unroll!(r < ROWS, 8, {
                let residual = residual.map(|residual| &residual.data[(first + r) * residual.pitch..]);
                let output = &mut output.data[(first + r) * output.pitch..][..output.channels];
                // A copy: were the sums themselves lent, they would live in memory.
                let sum = sums[r][0];
                store_part(sum.as_slice(), residual, self.clamp, output);
            });
            return;
        }
        let last = self.last;
        if let Some(residual) = residual {
            unroll!(r < ROWS, 8, {
                let residual = &residual.data[(first + r) * residual.pitch..][..last + V::LEN];
                unroll!(v < VECTORS, 3, {
                    let at = if v + 1 == VECTORS { last } else { v * V::LEN };
                    sums[r][v] += V::from_slice(simd, &residual[at..][..V::LEN]);
                });
            });
        }
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        unroll!(r < ROWS, 8, {
            let output = &mut output.data[(first + r) * output.pitch..][..last + V::LEN];
            unroll!(v < VECTORS, 3, {
                let at = if v + 1 == VECTORS { last } else { v * V::LEN };
                high.min(low.max(sums[r][v])).store_slice(&mut output[at..][..V::LEN]);
            });
        });
    }
}

/// Fewer channels than a vector holds.
#[inline(never)]
fn store_part(sums: &[f32], residual: Option<&[f32]>, clamp: Clamp<f32>, output: &mut [f32]) {
    for (i, (output, sum)) in output.iter_mut().zip(sums).enumerate() {
        *output = clamp.apply(residual.map_or(*sum, |residual| sum + residual[i]));
    }
}
