//! Depthwise convolution, forward. It is this long as it holds each of its tiles: any kernel, known kernels, two rows
//! at once.
//!
//! One vector holds neighbouring channels of one pixel, so stride never changes a load. Differs from
//! [`reference::depthwise`](super::reference::depthwise) in four ways:
//!
//! 1. A block of 16 channels, a cache line of each pixel, walks down the map. Its rows are kept with zeros to their
//!    left and right, and there is a row of zeros: borders cost no branch, and a pixel's place is a constant offset. A
//!    channels-last map is copied into a *ring* of such rows, as many as the kernel is high; then maps whose pixels lie
//!    a power of two apart, which would fight for the same few sets of the first-level cache, do so only once.
//!    [`PaddedRows`] are read in place.
//! 2. Eight neighbouring outputs are summed at once (seven, four or one where they fit better): each pixel is loaded
//!    once for every output it is part of, with one kernel row's weights in registers and one bounds check for all of
//!    them.
//! 3. Sums start from the bias.
//! 4. Where 32 registers hold all nine taps, 3x3 kernels of stride 1 or 2 over [`PaddedRows`] compute two rows of
//!    outputs at once: a pixel is loaded once for both. Each output adds in the same order as alone.
//!
//! ```text
//! for block of channels, for row:
//!     copy the rows the kernel newly touches into the ring
//!     for eight outputs x, for kernel row i, for column c:
//!         for tap j of output x = (c - j) / stride:
//!             sums[x] += ring[row * stride + i][c] * weight[i, j]
//! ```

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::f32x8;
use fearless_simd::prelude::*;
use fearless_simd::{Level, f32x4};

use super::ring::{Ring, RingRows};
use super::{BLOCK, Clamp, Pixels, PixelsMut, SimdLevel, Strides};
use crate::shape::Conv2dGeometry;

/// What is left over after whole blocks, up to half of one, is computed as half a block.
const HALF: usize = BLOCK / 2;

/// Weights `[KH, KW, C]` and bias `[C]` of a depthwise convolution without channel multiplier, packed in blocks of
/// channels: each block's bias, then its taps.
///
/// For channels-last maps the last block ends with the last channel, overlapping the one before.
#[derive(Clone, Copy, Debug)]
pub struct PackedDepthwise<'a> {
    taps: usize,
    channels: usize,
    blocked: bool,
    packed: &'a [f32],
}

impl<'a> PackedDepthwise<'a> {
    /// Fewer channels than this do not fill half a block; such convolutions of channels-last maps are
    /// [`reference::depthwise`](super::reference::depthwise)'s.
    pub const LEAST_CHANNELS: usize = HALF;

    /// Floats that [`PackedDepthwise::pack`] fills.
    #[must_use]
    pub fn len(taps: usize, channels: usize) -> usize {
        // Two blocks for what may be two halves.
        (taps + 1) * channels.next_multiple_of(if channels < BLOCK { 2 * BLOCK } else { BLOCK })
    }

    /// Packs `weight [taps, C]` and `bias [C]` (zeros if `None`) into `packed`, for channels-last maps.
    ///
    /// # Panics
    ///
    /// If a slice is too short or the channels too few.
    #[must_use]
    pub fn pack(taps: usize, channels: usize, weight: &[f32], bias: Option<&[f32]>, packed: &'a mut [f32]) -> Self {
        assert!(channels >= Self::LEAST_CHANNELS, "{channels} channels do not fill a block");
        Self::pack_for(false, [taps, channels], weight, bias, packed)
    }

    /// As [`PackedDepthwise::pack`], for maps in whole blocks of channels ([`Strides`]).
    ///
    /// # Panics
    ///
    /// If a slice is too short.
    #[must_use]
    pub fn pack_blocked(
        taps: usize,
        channels: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        packed: &'a mut [f32],
    ) -> Self {
        Self::pack_for(true, [taps, channels], weight, bias, packed)
    }

    fn pack_for(
        blocked: bool,
        [taps, channels]: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
        packed: &'a mut [f32],
    ) -> Self {
        let packed = &mut packed[..Self::len(taps, channels)];
        for ((first, _), block) in blocks(channels, blocked).zip(packed.chunks_exact_mut((taps + 1) * BLOCK)) {
            let width = BLOCK.min(channels - first);
            for (tap, row) in block.chunks_exact_mut(BLOCK).enumerate() {
                row[width..].fill(0.0);
                match tap.checked_sub(1).map(|tap| &weight[tap * channels..]).or(bias) {
                    Some(from) => row[..width].copy_from_slice(&from[first..][..width]),
                    None => row[..width].fill(0.0),
                }
            }
        }
        Self { taps, channels, blocked, packed }
    }

    /// Multiplies the taps of each channel by its factor, but not its bias, once [`PackedDepthwise::pack_blocked`] has
    /// packed them.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedDepthwise::len`].
    pub fn scale_blocked(taps: usize, factors: &[f32], packed: &mut [f32]) {
        let packed = &mut packed[..Self::len(taps, factors.len())];
        for (factors, block) in factors.chunks(BLOCK).zip(packed.chunks_exact_mut((taps + 1) * BLOCK)) {
            for row in block.chunks_exact_mut(BLOCK).skip(1) {
                row.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor);
            }
        }
    }

    /// Weights that [`PackedDepthwise::pack`] packed before, for the same sizes.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedDepthwise::len`] or the channels too few.
    #[must_use]
    pub fn from_packed(taps: usize, channels: usize, packed: &'a [f32]) -> Self {
        assert!(channels >= Self::LEAST_CHANNELS, "{channels} channels do not fill a block");
        Self { taps, channels, blocked: false, packed: &packed[..Self::len(taps, channels)] }
    }

    /// Weights that [`PackedDepthwise::pack_blocked`] packed before, for the same sizes, or whole blocks of them.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than those blocks.
    #[must_use]
    pub fn from_packed_blocked(taps: usize, channels: usize, packed: &'a [f32]) -> Self {
        let len = (taps + 1) * channels.next_multiple_of(BLOCK);
        Self { taps, channels, blocked: true, packed: &packed[..len] }
    }
}

/// First channel and computed channels, a whole block or half of one, of every block.
fn blocks(channels: usize, blocked: bool) -> impl Iterator<Item = (usize, usize)> {
    // Channels-last, nine to fifteen channels are two halves.
    let width = if !blocked && channels < BLOCK { HALF } else { BLOCK };
    (0..channels.div_ceil(width)).map(move |block| {
        let first = block * width;
        match channels - first {
            left if left <= HALF && blocked => (first, HALF),
            left if left <= HALF => (channels.saturating_sub(HALF), HALF),
            left if left < width && !blocked => (channels - width, width),
            _ => (first, width),
        }
    })
}

/// Floats that [`depthwise`] needs as scratch: a ring of input rows, and a row of outputs.
#[must_use]
pub fn depthwise_scratch_len(geometry: &Conv2dGeometry) -> usize {
    let ring = (geometry.ring_rows() + 1).saturating_mul(geometry.padded_width());
    ring.saturating_add(geometry.output[1]).saturating_mul(BLOCK)
}

/// Rows of a map in blocks of channels, with the padding's zeros to their left and right: input row `y` is in place
/// `y % places`, the place after the last holds zeros.
#[derive(Clone, Copy, Debug)]
pub struct PaddedRows<'a> {
    /// The elements, from the first place's left padding on.
    pub data: &'a [f32],
    /// Rows that are kept: those that the outputs read, or the whole map.
    pub places: usize,
    /// `row` leads from place to place, `pixel` is [`BLOCK`].
    pub strides: Strides,
}

/// Computes the output rows from `first_row` on that fit into `output`; see
/// [`reference::depthwise`](super::reference::depthwise) for the formula.
///
/// Shapes: `input [H, W, C]`, `output [rows, OW, C]`, both channels-last.
///
/// # Panics
///
/// If sizes, channels or taps differ, a slice is shorter than its shape or [`depthwise_scratch_len`] says, `output` is
/// not whole rows, the weights are packed for another layout, or this machine cannot run `level`.
#[expect(clippy::too_many_arguments, reason = "level and scratch are the machine's, the rest is the convolution")]
pub fn depthwise(
    level: SimdLevel,
    geometry: &Conv2dGeometry,
    weights: &PackedDepthwise<'_>,
    input: Pixels<'_, f32>,
    clamp: Clamp<f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
    scratch: &mut [f32],
) {
    assert_eq!((input.size, input.channels), (geometry.input, weights.channels), "input is not the geometry's map");
    assert!(input.strides.block == BLOCK && output.strides.block == BLOCK && !weights.blocked, "not channels-last");
    let scratch = &mut scratch[..depthwise_scratch_len(geometry)];
    Blocks { geometry, weights, clamp, first_row }.run(level, Source::Copied(input, scratch), output);
}

/// As [`depthwise`], over rows that already have their padding, into a map in blocks of channels: `output [rows, OW,
/// C]`.
///
/// # Panics
///
/// As [`depthwise`]; if a row is not in blocks or lacks its padding.
pub fn depthwise_in_place(
    level: SimdLevel,
    geometry: &Conv2dGeometry,
    weights: &PackedDepthwise<'_>,
    input: PaddedRows<'_>,
    clamp: Clamp<f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
) {
    let Strides { row, pixel, block } = input.strides;
    assert!(weights.blocked && pixel == BLOCK && output.strides.pixel == BLOCK, "not in blocks");
    assert!(row.is_multiple_of(BLOCK) && block.is_multiple_of(BLOCK), "pixels are not whole blocks");
    Blocks { geometry, weights, clamp, first_row }.run(level, Source::InPlace(input), output);
}

/// Where a block's padded rows come from.
enum Source<'a> {
    /// A channels-last map, through a ring.
    Copied(Pixels<'a, f32>, &'a mut [f32]),
    InPlace(PaddedRows<'a>),
}

/// What every block shares.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    geometry: &'a Conv2dGeometry,
    weights: &'a PackedDepthwise<'a>,
    clamp: Clamp<f32>,
    first_row: usize,
}

/// A block of channels: the first one, how many are computed, and bias and taps.
#[derive(Clone, Copy)]
struct Block<'a> {
    first: usize,
    lanes: usize,
    packed: &'a [[f32; BLOCK]],
}

impl Blocks<'_> {
    fn run(&self, level: SimdLevel, mut source: Source<'_>, output: &mut PixelsMut<'_, f32>) {
        let (weights, g) = (self.weights, self.geometry);
        assert_eq!(output.channels, weights.channels, "channels differ");
        assert_eq!(weights.taps, g.taps(), "taps differ");
        assert_eq!(output.size[1], g.output[1], "output is not whole rows");
        assert!(self.first_row + output.size[0] <= g.output[0], "rows beyond the output map");
        let packed = weights.packed.as_chunks::<BLOCK>().0.chunks_exact(weights.taps + 1);
        for ((first, lanes), packed) in blocks(weights.channels, weights.blocked).zip(packed) {
            let (block, source) = (Block { first, lanes, packed }, &mut source);
            match (level.token(), lanes) {
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                (Some(Level::Avx512(simd)), BLOCK) => {
                    self.block::<_, fearless_simd::f32x16<_>, true>(simd, block, source, output);
                }
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                (Some(level @ (Level::Avx512(_) | Level::Avx2(_))), _) => {
                    let simd = level.as_avx2().expect("AVX-512 includes AVX2");
                    self.block::<_, f32x8<_>, false>(simd, block, source, output);
                }
                // SSE4.2 adds nothing these loops use.
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                (Some(level @ (Level::Sse2(_) | Level::Sse4_2(_))), _) => {
                    let simd = level.as_sse2().expect("SSE4.2 includes SSE2");
                    self.block::<_, f32x4<_>, false>(simd, block, source, output);
                }
                #[cfg(target_arch = "aarch64")]
                (Some(Level::Neon(simd)), _) => self.block::<_, f32x4<_>, true>(simd, block, source, output),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                (Some(Level::WasmSimd128(simd)), _) => self.block::<_, f32x4<_>, false>(simd, block, source, output),
                (Some(Level::Fallback(simd)), _) => self.block::<_, f32x4<_>, false>(simd, block, source, output),
                _ => unreachable!("this machine cannot run {level}"),
            }
        }
    }

    /// One block, row after row.
    #[inline(always)]
    fn block<S: Simd, V: SimdFloat<S, Element = f32>, const PAIRS: bool>(
        &self,
        simd: S,
        block: Block<'_>,
        source: &mut Source<'_>,
        output: &mut PixelsMut<'_, f32>,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let g = self.geometry;
                let (width, columns) = (g.padded_width(), g.output[1]);
                let mut ring = Ring::default();
                if let Source::Copied(_, scratch) = source {
                    scratch.fill(0.0);
                }
                let start = output.strides.channel(block.first);
                let mut first = 0;
                if const { PAIRS }
                    && let Source::InPlace(input) = *source
                {
                    first = match (g.kernel, g.stride, g.dilation) {
                        ([3, 3], [1, 1], [1, 1]) => self.pairs::<S, V, 1>(simd, block, input, output),
                        ([3, 3], [2, 2], [1, 1]) => self.pairs::<S, V, 2>(simd, block, input, output),
                        _ => 0,
                    };
                }
                for line in first..output.size[0] {
                    let row = self.first_row + line;
                    let to = &mut output.data[line * output.strides.row + start..];
                    match source {
                        Source::InPlace(input) => {
                            let data = input.data[block.first / BLOCK * input.strides.block..].as_chunks().0;
                            let rows = RingRows::of(g, row, input.places);
                            let from = Line { data, row_len: input.strides.row / BLOCK, rows };
                            self.any_line::<S, V>(simd, block, from, &mut to[..columns * BLOCK]);
                        }
                        Source::Copied(input, scratch) => {
                            let (slots, made) = scratch.split_at_mut((g.ring_rows() + 1) * width * BLOCK);
                            let (slots, _) = slots.as_chunks_mut();
                            let rows = ring.advance(
                                g,
                                row,
                                #[inline(always)]
                                |y, slot| copy_row(g, *input, y, block, &mut slots[slot * width..][..width]),
                            );
                            let made = &mut made[..columns * BLOCK];
                            self.any_line::<S, V>(simd, block, Line { data: slots, row_len: width, rows }, made);
                            let (made, _) = made.as_chunks::<BLOCK>();
                            for (to, made) in to.chunks_mut(output.strides.pixel).zip(made) {
                                to[..block.lanes].copy_from_slice(&made[..block.lanes]);
                            }
                        }
                    }
                }
            },
        );
    }

    /// One output row, in a block of its own.
    #[inline(always)]
    fn any_line<S: Simd, V: SimdFloat<S, Element = f32>>(
        &self,
        simd: S,
        block: Block<'_>,
        from: Line<'_>,
        to: &mut [f32],
    ) {
        let g = self.geometry;
        match (g.kernel, g.stride, g.dilation) {
            ([3, 3], [1, 1], [1, 1]) => self.line::<S, V, 3, 1>(simd, block, from, to),
            ([3, 3], [2, 2], [1, 1]) => self.line::<S, V, 3, 2>(simd, block, from, to),
            ([5, 5], [1, 1], [1, 1]) => self.line::<S, V, 5, 1>(simd, block, from, to),
            ([5, 5], [2, 2], [1, 1]) => self.line::<S, V, 5, 2>(simd, block, from, to),
            (_, [_, 1], _) => self.line::<S, V, 0, 1>(simd, block, from, to),
            (_, [_, 2], _) => self.line::<S, V, 0, 2>(simd, block, from, to),
            _ => self.line_apart::<S, V>(simd, block, from, to),
        }
    }

    /// One output row of kernels `K` high and wide, without dilation; of any kernel and dilation if `K` is 0.
    #[inline(always)]
    fn line<S: Simd, V: SimdFloat<S, Element = f32>, const K: usize, const STRIDE: usize>(
        &self,
        simd: S,
        block: Block<'_>,
        line: Line<'_>,
        output: &mut [f32],
    ) {
        let columns = self.geometry.output[1];
        let mut rows = [line.data; K];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = line.row(i);
        }
        // Rows by a number the compiler does not know: were it to unroll them too, it would run out of registers.
        let rows = &rows[..if K == 0 { 0 } else { self.geometry.kernel[0] }];
        let mut x = 0;
        while x < columns {
            let tile = tile_of(columns, columns - x);
            x = x.min(columns - tile);
            let output = &mut output[x * BLOCK..];
            for channel in (0..block.lanes).step_by(V::LEN) {
                match tile {
                    8 => self.tile::<S, V, K, STRIDE, 8>(simd, block, line, rows, x, channel, output),
                    7 => self.tile::<S, V, K, STRIDE, 7>(simd, block, line, rows, x, channel, output),
                    4 => self.tile::<S, V, K, STRIDE, 4>(simd, block, line, rows, x, channel, output),
                    _ => self.tile::<S, V, K, STRIDE, 1>(simd, block, line, rows, x, channel, output),
                }
            }
            x += tile;
        }
    }

    /// Rows of 3x3 kernels without dilation, two at a time: a pixel is loaded once for both, all nine weights stay in
    /// registers. Returns how many rows that were.
    #[inline(always)]
    fn pairs<S: Simd, V: SimdFloat<S, Element = f32>, const STRIDE: usize>(
        &self,
        simd: S,
        block: Block<'_>,
        input: PaddedRows<'_>,
        output: &mut PixelsMut<'_, f32>,
    ) -> usize {
        let (g, row_len) = (self.geometry, input.strides.row / BLOCK);
        let columns = g.output[1];
        let (data, _) = input.data[block.first / BLOCK * input.strides.block..].as_chunks();
        let start = output.strides.channel(block.first);
        let pairs = output.size[0] / 2;
        for pair in 0..pairs {
            let line = Line { data, row_len, rows: RingRows::of(g, self.first_row + 2 * pair, input.places) };
            // No array's `map`: it was not inlined, and the rows went through memory.
            let rows =
                [line.row(0), line.row(1), line.row(2), line.row(3), if STRIDE == 1 { &[] } else { line.row(4) }];
            let to = &mut output.data[2 * pair * output.strides.row + start..];
            let (above, below) = to.split_at_mut(output.strides.row);
            let (above, below) = (&mut above[..columns * BLOCK], &mut below[..columns * BLOCK]);
            let mut x = 0;
            while x < columns {
                let tile = tile_of(columns, columns - x);
                x = x.min(columns - tile);
                let (above, below) = (&mut above[x * BLOCK..], &mut below[x * BLOCK..]);
                for channel in (0..block.lanes).step_by(V::LEN) {
                    let output = [&mut above[channel..], &mut below[channel..]];
                    match tile {
                        8 => self.tile_of_two::<S, V, STRIDE, 8>(simd, block, rows, x, channel, output),
                        7 => self.tile_of_two::<S, V, STRIDE, 7>(simd, block, rows, x, channel, output),
                        4 => self.tile_of_two::<S, V, STRIDE, 4>(simd, block, rows, x, channel, output),
                        _ => self.tile_of_two::<S, V, STRIDE, 1>(simd, block, rows, x, channel, output),
                    }
                }
                x += tile;
            }
        }
        2 * pairs
    }

    /// One vector of `OUTPUTS` neighbouring outputs and of those below them, from the `3 + STRIDE` rows they read.
    #[inline(always)]
    fn tile_of_two<S: Simd, V: SimdFloat<S, Element = f32>, const STRIDE: usize, const OUTPUTS: usize>(
        &self,
        simd: S,
        block: Block<'_>,
        rows: [&[[f32; BLOCK]]; 5],
        x: usize,
        channel: usize,
        output: [&mut [f32]; 2],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let bias = load(&block.packed[0]);
        let mut sums = [[bias; OUTPUTS]; 2];
        let taps: &[[f32; BLOCK]; 9] = block.packed[1..].first_chunk().expect("nine taps");
        let mut weights = [[bias; 3]; 3];
        unroll!(i < 3, 3, {
            unroll!(j < 3, 3, { weights[i][j] = load(&taps[i * 3 + j]) });
        });
        unroll!(i < 3 + STRIDE, 5, {
            let pixels = &rows[i][x * STRIDE..][..(OUTPUTS - 1) * STRIDE + 3];
            unroll!(column < (OUTPUTS - 1) * STRIDE + 3, 19, {
                let pixel = load(&pixels[column]);
                unroll!(j < 3, 3, {
                    if column >= j && (column - j).is_multiple_of(STRIDE) && (column - j) / STRIDE < OUTPUTS {
                        let o = (column - j) / STRIDE;
                        if i < 3 {
                            sums[0][o] = pixel.mul_add(weights[i][j], sums[0][o]);
                        }
                        if i >= STRIDE {
                            sums[1][o] = pixel.mul_add(weights[i - STRIDE][j], sums[1][o]);
                        }
                    }
                });
            });
        });
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        let [above, below] = output;
        let len = (OUTPUTS - 1) * BLOCK + V::LEN;
        let (above, below) = (&mut above[..len], &mut below[..len]);
        unroll!(o < OUTPUTS, 8, {
            high.min(low.max(sums[0][o])).store_slice(&mut above[o * BLOCK..][..V::LEN]);
            high.min(low.max(sums[1][o])).store_slice(&mut below[o * BLOCK..][..V::LEN]);
        });
    }

    /// One vector of `OUTPUTS` neighbouring outputs.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a part of `line` for each number of outputs")]
    fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const K: usize, const STRIDE: usize, const OUTPUTS: usize>(
        &self,
        simd: S,
        block: Block<'_>,
        line: Line<'_>,
        rows: &[&[[f32; BLOCK]]],
        x: usize,
        channel: usize,
        output: &mut [f32],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let mut sums = [load(&block.packed[0]); OUTPUTS];
        if K == 0 {
            let dilation = self.geometry.dilation[1];
            for (i, taps) in block.packed[1..].chunks_exact(self.geometry.kernel[1]).enumerate() {
                let row = &line.row(i)[x * STRIDE..];
                for (j, weight) in taps.iter().enumerate() {
                    let pixels = &row[j * dilation..][..=(OUTPUTS - 1) * STRIDE];
                    let weight = load(weight);
                    unroll!(o < OUTPUTS, 8, { sums[o] = load(&pixels[o * STRIDE]).mul_add(weight, sums[o]) });
                }
            }
        } else {
            for (row, taps) in rows.iter().zip(block.packed[1..].chunks_exact(K.max(1))) {
                let pixels = &row[x * STRIDE..][..(OUTPUTS - 1) * STRIDE + K];
                let mut weights = [sums[0]; K];
                unroll!(j < K, 5, { weights[j] = load(&taps[j]) });
                unroll!(column < (OUTPUTS - 1) * STRIDE + K, 19, {
                    let pixel = load(&pixels[column]);
                    unroll!(j < K, 5, {
                        if column >= j && (column - j).is_multiple_of(STRIDE) && (column - j) / STRIDE < OUTPUTS {
                            let o = (column - j) / STRIDE;
                            sums[o] = pixel.mul_add(weights[j], sums[o]);
                        }
                    });
                });
            }
        }
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        let output = &mut output[channel..][..(OUTPUTS - 1) * BLOCK + V::LEN];
        unroll!(o < OUTPUTS, 8, {
            high.min(low.max(sums[o])).store_slice(&mut output[o * BLOCK..][..V::LEN]);
        });
    }

    /// One output row with any kernel, stride and dilation, output by output.
    #[inline(always)]
    fn line_apart<S: Simd, V: SimdFloat<S, Element = f32>>(
        &self,
        simd: S,
        block: Block<'_>,
        line: Line<'_>,
        output: &mut [f32],
    ) {
        let g = self.geometry;
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        for x in 0..g.output[1] {
            for channel in (0..block.lanes).step_by(V::LEN) {
                let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
                let mut sum = load(&block.packed[0]);
                for (i, taps) in block.packed[1..].chunks_exact(g.kernel[1]).enumerate() {
                    let row = &line.row(i)[x * g.stride[1]..];
                    for (weight, pixel) in taps.iter().zip(row.iter().step_by(g.dilation[1])) {
                        sum = load(pixel).mul_add(load(weight), sum);
                    }
                }
                high.min(low.max(sum)).store_slice(&mut output[x * BLOCK + channel..][..V::LEN]);
            }
        }
    }
}

/// Columns of the next tile when `left` are left; the last may repeat columns of the one before.
#[inline(always)]
fn tile_of(columns: usize, left: usize) -> usize {
    match left {
        7 | 14 | 21 | 28 => 7,
        5.. if columns >= 8 => 8,
        2.. if columns >= 4 => 4,
        _ => 1,
    }
}

/// Copies a block of channels of row `row` of the input into the ring, between the zeros.
#[inline(always)]
fn copy_row(g: &Conv2dGeometry, input: Pixels<'_, f32>, row: usize, block: Block<'_>, slot: &mut [[f32; BLOCK]]) {
    let from = input.data[row * input.strides.row + block.first..].chunks(input.strides.pixel);
    let to = slot[g.before[1]..][..g.input[1]].iter_mut();
    if block.lanes == BLOCK {
        for (to, from) in to.zip(from) {
            to.copy_from_slice(&from[..BLOCK]);
        }
    } else {
        for (to, from) in to.zip(from) {
            to[..HALF].copy_from_slice(&from[..HALF]);
        }
    }
}

/// Where one output row of a block of channels comes from.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// The places of rows, `row_len` pixels apart.
    data: &'a [[f32; BLOCK]],
    row_len: usize,
    /// Where the kernel rows are in them.
    rows: RingRows,
}

impl<'a> Line<'a> {
    /// From the first pixel of what kernel row `tap` reads.
    #[inline(always)]
    fn row(self, tap: usize) -> &'a [[f32; BLOCK]] {
        &self.data[self.rows.place(tap) * self.row_len..]
    }
}
