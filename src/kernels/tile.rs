//! The register tile: a small matrix product whose sums never leave the registers. It is this long because whole and
//! half panels share its loops over rows, segments and outputs.
//!
//! Pointwise and dense convolution both end here. Written once for every SIMD level; what differs per level is the
//! vector and how many rows go with it, and that choice stands in [`with_tile`], [`HALF_ROWS`] and `panel.rs` alone.
//!
//! Weights are packed in *panels* of one to three vectors of output channels: first the panel's bias, then one row
//! of weights per input. A tile starts its sums from the bias and walks the panel once, front to back:
//!
//! ```text
//! for k in inputs:                       one row of the panel: 1 to 3 loads
//!     for row in rows:                   one broadcast
//!         sums[row] += input[row, k] * panel[k]
//! ```
//!
//! Where a panel meets few tiles, these also prefetch the next panel. In channels-last maps each prefetches the lines
//! that the next one writes. A half panel takes four inputs a turn: a broadcast of all four feeds two full vectors,
//! which sum each output in four neighbouring lanes.

use fearless_simd::prelude::*;
use fearless_simd::{f32x4, f32x8, f32x16, f64x8, u32x16};

use super::panel::{HALF, QUAD};
use super::prefetch::prefetch;
use super::ring::RingRows;
use super::{BLOCK, Clamp, PackedWeights, Pixels, PixelsMut, Strides};

/// Calls `$run::<S, V, R1, R2, R3>(simd, ..)` with the level's token `S`, its vector `V`, and the rows of a tile of 1,
/// 2 and 3 vectors.
///
/// A tile of `R x N` holds `R * N` sums, `N` weights and a broadcast in registers: at most 31 of 32 (AVX-512, NEON)
/// or 15 of 16, one less without fused multiply-add, where the product needs a place. It wants at least 8 sums in
/// flight (two multiply-adds a cycle, four cycles each).
///
/// - AVX-512: 7 rows, which divide every map of a 224 input (112, 56, 28, 14, 7): 21 sums and 4 operands; 28 of a
///   single vector, whose start and end are a larger part of a tile; [`HALF_ROWS`] of a half panel.
/// - AVX2: 6 x 2, 12 sums and 3 operands; 3 x 3 for an odd number of vectors, as 4 x 3 spills.
/// - 128 bits without fused multiply-add: 4 x 2.
macro_rules! with_tile {
    ($level:expr, $run:ident($($argument:expr),* $(,)?)) => {
        match $level.token() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx512(simd)) => {
                $run::<_, fearless_simd::f32x16<_>, 28, 7, 7>(simd, $($argument),*)
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

/// Rows of a tile of a half panel: 28 sums, two weights and a broadcast in registers.
const HALF_ROWS: usize = 14;

/// Step between the inputs of a stem: stride 2 over red, green and blue.
const STEM: usize = 6;

/// What the outputs of a map read: neighbouring outputs `step` apart, each `kernel_rows` times `depth` inputs, of which
/// `run` at a time are neighbours. A pixel of a channels-last map is the smallest patch: one run.
#[derive(Clone, Copy)]
pub(super) struct Patches<'a> {
    /// The ring's rows, `row_len` apart.
    pub(super) data: &'a [f32],
    pub(super) row_len: usize,
    pub(super) rows: RingRows,
    pub(super) kernel_rows: usize,
    pub(super) depth: usize,
    pub(super) run: usize,
    /// From one run to the next.
    pub(super) run_step: usize,
    /// From one output to the next.
    pub(super) step: usize,
    /// From one row of outputs to the next.
    pub(super) line_step: usize,
}

impl<'a> Patches<'a> {
    /// Every pixel of a map.
    pub(super) fn pixels(map: Pixels<'a, f32>) -> Self {
        let Strides { row, pixel, block } = map.strides;
        Self {
            data: map.data,
            row_len: 0,
            rows: RingRows::ONE,
            kernel_rows: 1,
            depth: map.channels,
            run: if block == BLOCK { map.channels } else { BLOCK },
            run_step: block,
            step: pixel,
            line_step: row,
        }
    }

    fn is_pixels(&self) -> bool {
        self.row_len == 0
    }
}

/// All panels, one after the other, over the rows of a map.
pub(super) fn panels_over_rows<
    S: Simd,
    V: SimdFloat<S, Element = f32>,
    const R1: usize,
    const R2: usize,
    const R3: usize,
>(
    simd: S,
    weights: PackedWeights<'_>,
    patches: Patches<'_>,
    residual: Option<Pixels<'_, f32>>,
    clamp: Clamp<f32>,
    output: &mut PixelsMut<'_, f32>,
) {
    let (panels, inputs) = (weights.layout(), weights.inputs());
    let panel = |packed, channels: [usize; 3], width, strides: Strides| Weights {
        packed,
        far: weights.far(),
        patches,
        clamp,
        output: channels.map(|channel| strides.channel(channel)),
        residual: residual.map(|map| (map, channels.map(|channel| map.strides.channel(channel)))),
        part: (panels.outputs < width && !panels.blocked).then_some(panels.outputs),
    };
    let (mut vector, mut rest) = (0, weights.packed());
    while vector < panels.total() {
        let vectors = panels.next(panels.total() - vector);
        let (packed, tail) = rest.split_at((inputs + 1) * vectors * V::LEN);
        let channels = [0, 1, 2].map(|v| panels.channel(vector + v.min(vectors - 1)));
        let panel = panel(packed, channels, V::LEN, output.strides);
        match vectors {
            1 => panel.over_rows::<S, V, R1, 1>(simd, output),
            2 => panel.over_rows::<S, V, R2, 2>(simd, output),
            _ => panel.over_rows::<S, V, R3, 3>(simd, output),
        }
        (vector, rest) = (vector + vectors, tail);
    }
    if const { V::LEN == 2 * HALF } && panels.has_half() {
        let panel = panel(rest, [panels.half_channel(); 3], HALF, output.strides);
        panel.over_rows::<S, V, HALF_ROWS, 0>(simd, output);
    }
}

/// What all tiles of a panel share.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// Bias, then a row per input.
    packed: &'a [f32],
    /// See [`PackedWeights::with_far`].
    far: usize,
    patches: Patches<'a>,
    clamp: Clamp<f32>,
    /// Where each vector is in an output pixel.
    output: [usize; 3],
    /// The map to add, and where each vector is in a pixel of it.
    residual: Option<(Pixels<'a, f32>, [usize; 3])>,
    /// Channels of a pixel that is less than a vector.
    part: Option<usize>,
}

/// Where a tile is, and what it prefetches.
#[derive(Clone, Copy)]
struct At {
    /// Its row of outputs, and the first of them.
    line: usize,
    first: usize,
    /// Places in the packed weights: of its share of the next panel, of its share of what is far, and the step of both.
    ahead: [usize; 3],
}

impl At {
    /// Where the tile's output `r` starts in a map of these strides; between pixels [`BLOCK`] is known if there is a
    /// `STEP`.
    #[inline(always)]
    fn start<const STEP: usize>(self, strides: Strides, r: usize) -> usize {
        self.line * strides.row + (self.first + r) * pixel_step::<STEP>(strides)
    }
}

#[inline(always)]
fn pixel_step<const STEP: usize>(strides: Strides) -> usize {
    if STEP == 0 { strides.pixel } else { BLOCK }
}

/// Tiles that a map takes, at least: the rest of a row may be several.
#[inline(always)]
fn tiles<const MOST: usize>([lines, count]: [usize; 2]) -> usize {
    lines * count.div_ceil(MOST)
}

impl Weights<'_> {
    /// Tiles of `MOST` rows, of half of 28, then of 4, 2 or 1, which may repeat rows of the one before: the output is
    /// the same, and tiles of every size would be twice the code. No `VECTORS` are a half panel.
    fn over_rows<S: Simd, V: SimdFloat<S, Element = f32>, const MOST: usize, const VECTORS: usize>(
        &self,
        simd: S,
        output: &mut PixelsMut<'_, f32>,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let residual = self.residual.is_none_or(|(map, _)| map.strides.pixel == BLOCK);
                match (self.patches.step, output.strides.pixel) {
                    (BLOCK, BLOCK) if residual && self.patches.is_pixels() => {
                        if const { VECTORS > 1 } && tiles::<MOST>(output.size) <= VECTORS * V::LEN {
                            self.lines::<S, V, MOST, VECTORS, BLOCK, true>(simd, output);
                        } else {
                            self.lines::<S, V, MOST, VECTORS, BLOCK, false>(simd, output);
                        }
                    }
                    (STEM, BLOCK) if residual => self.lines::<S, V, MOST, VECTORS, STEM, false>(simd, output),
                    _ => self.lines::<S, V, MOST, VECTORS, 0, false>(simd, output),
                }
            },
        );
    }

    /// With a `STEP`, that from one output's inputs to the next, and outputs [`BLOCK`] apart, the compiler knows a tile
    /// to be at constant offsets from its first pixel; 0 is any step. A step of [`BLOCK`] says that patches are pixels,
    /// too. Tiles prefetch weights if they are so few, `AHEAD`, that a turn of one asks for at least a float.
    #[inline(always)]
    fn lines<
        S: Simd,
        V: SimdFloat<S, Element = f32>,
        const MOST: usize,
        const VECTORS: usize,
        const STEP: usize,
        const AHEAD: bool,
    >(
        &self,
        simd: S,
        output: &mut PixelsMut<'_, f32>,
    ) {
        let [lines, count] = output.size;
        // Floats a turn for all tiles together to prefetch the next panel; with something far, that and this take
        // turns. One or two tiles step over lines: the whole panel would take them several prefetches a turn.
        let step = if AHEAD { (VECTORS * V::LEN).div_ceil(tiles::<MOST>(output.size).max(1)) } else { 0 };
        let far = if self.far > 0 { self.far } else { step };
        let mut next = self.packed.len();
        for line in 0..lines {
            let mut first = 0;
            while first < count {
                let left = count - first;
                // Two fours rather than a whole tile and a small rest, which has too few sums in flight.
                let halve = MOST <= 8 && left > MOST && left < 2 * MOST;
                let wanted = if halve { left.div_ceil(2) } else { left.min(MOST) };
                let rows = match wanted {
                    1 | 2 => wanted,
                    3 | 4 if MOST > 4 && count >= 4 => 4,
                    5..=8 if MOST > 8 => 4,
                    9..=27 if MOST > 14 && count >= 14 => 14,
                    _ if count >= MOST => MOST,
                    4.. => 4,
                    _ => 2,
                };
                first = first.min(count - rows);
                let at = At { line, first, ahead: [next, next + far, 2 * step] };
                next += step * self.patches.depth;
                if const { STEP == 0 } {
                    let size = [MOST, (VECTORS * V::LEN).max(HALF)];
                    self.prefetch_outputs(At { first: first + rows, ..at }, size, output);
                }
                match rows {
                    1 => self.tile::<S, V, 1, VECTORS, STEP, AHEAD>(simd, at, output),
                    2 => self.tile::<S, V, 2, VECTORS, STEP, AHEAD>(simd, at, output),
                    14 if MOST > 14 => self.tile::<S, V, 14, VECTORS, STEP, AHEAD>(simd, at, output),
                    4 if MOST > 4 => self.tile::<S, V, 4, VECTORS, STEP, AHEAD>(simd, at, output),
                    _ => self.tile::<S, V, MOST, VECTORS, STEP, AHEAD>(simd, at, output),
                }
                first += rows;
            }
        }
    }

    /// Asks for the lines of a channels-last map that the next tile, of so many rows and channels, writes. In training
    /// maps are larger than the caches, and a tile, which writes a line of each row, would wait for each.
    #[inline(always)]
    fn prefetch_outputs(&self, at: At, [rows, channels]: [usize; 2], output: &PixelsMut<'_, f32>) {
        if output.strides.block != BLOCK {
            return;
        }
        for r in 0..rows {
            let start = at.start::<0>(output.strides, r) + self.output[0];
            for line in (0..channels).step_by(BLOCK) {
                prefetch(output.data, start + line);
            }
        }
    }

    /// `ROWS` pixels by `VECTORS` vectors of output channels, or by a half panel.
    #[inline(always)]
    fn tile<
        S: Simd,
        V: SimdFloat<S, Element = f32>,
        const ROWS: usize,
        const VECTORS: usize,
        const STEP: usize,
        const AHEAD: bool,
    >(
        &self,
        simd: S,
        at: At,
        output: &mut PixelsMut<'_, f32>,
    ) {
        if const { VECTORS == 0 } {
            let sums = self.half_sums::<S, ROWS, STEP>(simd, at);
            self.finish::<S, f32x8<S>, ROWS, 1, STEP>(simd, at, sums, output);
        } else {
            let sums = self.sums::<S, V, ROWS, VECTORS, STEP, AHEAD>(simd, at);
            self.finish::<S, V, ROWS, VECTORS, STEP>(simd, at, sums, output);
        }
    }

    /// Calls `segment` with as many inputs of `ROWS` pixels as are neighbours, and those of each pixel after them.
    #[inline(always)]
    fn segments<const ROWS: usize, const STEP: usize>(&self, at: At, mut segment: impl FnMut([&[f32]; ROWS])) {
        let patches = self.patches;
        let step = if STEP == 0 { patches.step } else { STEP };
        // Finding the rows of a pixel, which has one, took up to an eighth of the time of few inputs.
        for i in 0..if STEP == BLOCK { 1 } else { patches.kernel_rows } {
            let mut from = at.line * patches.line_step + at.first * step;
            if STEP != BLOCK {
                from += patches.rows.place(i) * patches.row_len;
            }
            let mut left = patches.depth;
            while left > 0 {
                let depth = left.min(patches.run);
                let pixels = &patches.data[from..][..(ROWS - 1) * step + depth];
                let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
                unroll!(r < ROWS, 28, { rows[r] = &pixels[r * step..][..depth] });
                (from, left) = (from + patches.run_step, left - depth);
                segment(rows);
            }
        }
    }

    #[inline(always)]
    fn sums<
        S: Simd,
        V: SimdFloat<S, Element = f32>,
        const ROWS: usize,
        const VECTORS: usize,
        const STEP: usize,
        const AHEAD: bool,
    >(
        &self,
        simd: S,
        at: At,
    ) -> [[V; VECTORS]; ROWS] {
        let width = VECTORS * V::LEN;
        let (bias, mut weights) = self.packed.split_at(width);
        let mut sums = [[V::splat(simd, 0.0); VECTORS]; ROWS];
        unroll!(v < VECTORS, 3, {
            let bias = V::from_slice(simd, &bias[v * V::LEN..][..V::LEN]);
            unroll!(r < ROWS, 28, { sums[r][v] = bias });
        });
        let [mut ahead, mut other, step] = at.ahead;
        self.segments::<ROWS, STEP>(
            at,
            #[inline(always)]
            |rows| {
                let depth = rows[0].len();
                let (segment, rest) = weights.split_at(depth * width);
                weights = rest;
                for (k, weights) in (0..depth).zip(segment.chunks_exact(width)) {
                    if const { AHEAD } {
                        prefetch(self.packed, ahead);
                        (ahead, other) = (other, ahead + step);
                    }
                    unroll!(r < ROWS, 28, {
                        let input = V::splat(simd, rows[r][k]);
                        unroll!(v < VECTORS, 3, {
                            let weight = V::from_slice(simd, &weights[v * V::LEN..][..V::LEN]);
                            sums[r][v] = input.mul_add(weight, sums[r][v]);
                        });
                    });
                }
            },
        );
        sums
    }

    /// The same of a half panel. Of a quad that a segment ends or begins within, inputs are added one by one.
    #[inline(always)]
    fn half_sums<S: Simd, const ROWS: usize, const STEP: usize>(&self, simd: S, at: At) -> [[f32x8<S>; 1]; ROWS] {
        let (bias, mut weights) = self.packed.as_chunks().0.split_first().expect("a bias");
        let mut sums = [halves(simd, bias); ROWS];
        // The place of the next input in a quad.
        let mut lane = 0;
        self.segments::<ROWS, STEP>(
            at,
            #[inline(always)]
            |rows| {
                let depth = rows[0].len();
                let mut k = 0;
                while k < depth {
                    let count = (depth - k) / QUAD;
                    if lane == 0 && count > 0 {
                        let mut quads: [&[[f32; QUAD]]; ROWS] = [&[]; ROWS];
                        unroll!(r < ROWS, 28, { quads[r] = &rows[r][k..].as_chunks().0[..count] });
                        let (whole, rest) = weights.split_at(count);
                        (weights, k) = (rest, k + count * QUAD);
                        for (k, weights) in (0..count).zip(whole) {
                            let [even, odd] = halves(simd, weights);
                            unroll!(r < ROWS, 28, {
                                let quad = f32x16::block_splat(f32x4::from_slice(simd, &quads[r][k]));
                                sums[r][0] = quad.mul_add(even, sums[r][0]);
                                sums[r][1] = quad.mul_add(odd, sums[r][1]);
                            });
                        }
                    } else {
                        let mask = u32x16::from_slice(simd, &LANES[lane]);
                        let [even, odd] = halves(simd, &weights[0]);
                        let (even, odd) = (even.bitcast::<u32x16<S>>() & mask, odd.bitcast::<u32x16<S>>() & mask);
                        let (even, odd): (f32x16<S>, f32x16<S>) = (even.bitcast(), odd.bitcast());
                        unroll!(r < ROWS, 28, {
                            let input = f32x16::splat(simd, rows[r][k]);
                            sums[r][0] = input.mul_add(even, sums[r][0]);
                            sums[r][1] = input.mul_add(odd, sums[r][1]);
                        });
                        (k, lane) = (k + 1, (lane + 1) % QUAD);
                        if lane == 0 {
                            weights = &weights[1..];
                        }
                    }
                }
            },
        );
        let mut halves = [[f32x8::splat(simd, 0.0)]; ROWS];
        unroll!(r < ROWS, 28, {
            if r.is_multiple_of(2) {
                let other = if r + 1 < ROWS { r + 1 } else { r };
                let [a, b] = [
                    add_neighbours(simd, sums[r][0], sums[r][1]),
                    add_neighbours(simd, sums[other][0], sums[other][1]),
                ];
                let both: f64x8<S> = add_neighbours(simd, a, b).bitcast();
                halves[r] = [both.unzip_low(both).split().0.bitcast()];
                if r + 1 < ROWS {
                    halves[(r + 1) % ROWS] = [both.unzip_high(both).split().0.bitcast()];
                }
            }
        });
        halves
    }

    /// Adds the residual to a tile, clamps and stores it.
    #[inline(always)]
    fn finish<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize, const STEP: usize>(
        &self,
        simd: S,
        at: At,
        mut sums: [[V; VECTORS]; ROWS],
        output: &mut PixelsMut<'_, f32>,
    ) {
        if let (true, Some(part)) = (const { VECTORS == 1 }, self.part) {
            let mut rows = [[0.0; BLOCK]; ROWS];
            unroll!(r < ROWS, 28, { sums[r][0].store_slice(&mut rows[r][..V::LEN]) });
            let residual = self.residual.map(|(map, _)| &map.data[at.start::<STEP>(map.strides, 0)..]);
            let steps = [pixel_step::<STEP>(output.strides), self.residual.map_or(0, |(map, _)| map.strides.pixel)];
            let output = &mut output.data[at.start::<STEP>(output.strides, 0)..];
            store_parts(&rows, part, self.clamp, residual, output, steps);
            return;
        }
        if let Some((map, vectors)) = self.residual {
            let (residual, step) = (&map.data[at.start::<STEP>(map.strides, 0)..], pixel_step::<STEP>(map.strides));
            unroll!(v < VECTORS, 3, {
                let residual = &residual[vectors[v]..][..(ROWS - 1) * step + V::LEN];
                unroll!(r < ROWS, 28, { sums[r][v] += V::from_slice(simd, &residual[r * step..][..V::LEN]) });
            });
        }
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        let (start, step) = (at.start::<STEP>(output.strides, 0), pixel_step::<STEP>(output.strides));
        unroll!(v < VECTORS, 3, {
            let output = &mut output.data[start + self.output[v]..][..(ROWS - 1) * step + V::LEN];
            unroll!(r < ROWS, 28, {
                high.min(low.max(sums[r][v])).store_slice(&mut output[r * step..][..V::LEN]);
            });
        });
    }
}

/// The two vectors of a half panel's row: even outputs, then odd ones.
#[inline(always)]
fn halves<S: Simd>(simd: S, row: &[f32; QUAD * HALF]) -> [f32x16<S>; 2] {
    let (even, odd) = row.split_at(QUAD * HALF / 2);
    [f32x16::from_slice(simd, even), f32x16::from_slice(simd, odd)]
}

/// Ones where each input of a quad has its weights.
const LANES: [[u32; 2 * HALF]; QUAD] = {
    let mut lanes = [[0; 2 * HALF]; QUAD];
    let mut at = 0;
    while at < 2 * HALF {
        lanes[at % QUAD][at] = u32::MAX;
        at += 1;
    }
    lanes
};

/// In each 128 bits the sums of two neighbours of `a`, then those of `b`. Shuffles of 512 bits, as the compiler would
/// make `vhaddps` of narrower ones, which reaches only half of the registers.
#[inline(always)]
fn add_neighbours<S: Simd>(simd: S, a: f32x16<S>, b: f32x16<S>) -> f32x16<S> {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if let Some(avx512) = simd.level().as_avx512() {
        #[cfg(target_arch = "x86")]
        use core::arch::x86::_mm512_shuffle_ps;
        #[cfg(target_arch = "x86_64")]
        use core::arch::x86_64::_mm512_shuffle_ps;
        fearless_simd::kernel!(
            #[inline(always)]
            fn add(avx512: Avx512, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                let (a, b) = (f32x16::simd_from(avx512, a).into(), f32x16::simd_from(avx512, b).into());
                let even: f32x16<_> = _mm512_shuffle_ps::<0x88>(a, b).simd_into(avx512);
                let odd: f32x16<_> = _mm512_shuffle_ps::<0xdd>(a, b).simd_into(avx512);
                (even + odd).into()
            }
        );
        return f32x16::simd_from(simd, add(avx512, a.into(), b.into()));
    }
    let _ = (a, b);
    unreachable!("half panels are for AVX-512 alone, not {:?}", simd.level())
}

/// As [`Weights::finish`], of rows with `part` channels, which are fewer than a vector holds. `steps` lie between the
/// pixels of the output, and of the residual.
#[inline(never)]
fn store_parts(
    rows: &[[f32; BLOCK]],
    part: usize,
    clamp: Clamp<f32>,
    residual: Option<&[f32]>,
    output: &mut [f32],
    steps: [usize; 2],
) {
    for (r, sums) in rows.iter().enumerate() {
        for (i, (output, sum)) in output[r * steps[0]..][..part].iter_mut().zip(sums).enumerate() {
            *output = clamp.apply(residual.map_or(*sum, |residual| sum + residual[r * steps[1] + i]));
        }
    }
}
