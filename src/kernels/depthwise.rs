//! Depthwise convolution, forward.
//!
//! One vector holds neighbouring channels of one pixel, so stride never changes a load. Differs from
//! [`reference::depthwise`](super::reference::depthwise) in three ways:
//!
//! 1. A block of 16 channels, a cache line of each pixel, walks down the map. Its rows pass through a *ring* of as
//!    many rows as the kernel is high, with zeros to their left and right and one row of zeros: borders cost no
//!    branch, a pixel's place is a constant offset, and maps whose pixels lie a power of two apart, which would fight
//!    for the same few sets of the first-level cache, do so only once.
//! 2. Eight neighbouring outputs are summed at once: each pixel is loaded once for every output it is part of, with one
//!    kernel row's weights in registers and one bounds check for all of them.
//! 3. Sums start from the bias.
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
use super::{Clamp, Pixels, PixelsMut, SimdLevel};
use crate::shape::Conv2dGeometry;

/// Channels of a block: a cache line. What is left over, up to half of one, takes a block of half the size.
const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// Weights `[KH, KW, C]` and bias `[C]` of a depthwise convolution without channel multiplier, packed in blocks of
/// channels: each block's bias, then its taps. The last block ends with the last channel, overlapping the one before.
#[derive(Clone, Copy, Debug)]
pub struct PackedDepthwise<'a> {
    taps: usize,
    channels: usize,
    packed: &'a [f32],
}

impl<'a> PackedDepthwise<'a> {
    /// Fewer channels than this do not fill a block; such convolutions are
    /// [`reference::depthwise`](super::reference::depthwise)'s.
    pub const LEAST_CHANNELS: usize = HALF;

    /// Floats that [`PackedDepthwise::pack`] fills.
    #[must_use]
    pub fn len(taps: usize, channels: usize) -> usize {
        blocks(channels).map(|(_, width)| (taps + 1) * width).sum()
    }

    /// Packs `weight [taps, C]` and `bias [C]` (zeros if `None`) into `packed`.
    ///
    /// # Panics
    ///
    /// If a slice is too short or the channels too few.
    #[must_use]
    pub fn pack(taps: usize, channels: usize, weight: &[f32], bias: Option<&[f32]>, packed: &'a mut [f32]) -> Self {
        assert!(channels >= Self::LEAST_CHANNELS, "{channels} channels do not fill a block");
        let packed = &mut packed[..Self::len(taps, channels)];
        let mut rest = &mut *packed;
        for (first, width) in blocks(channels) {
            let (block, tail) = rest.split_at_mut((taps + 1) * width);
            let (head, rows) = block.split_at_mut(width);
            match bias {
                Some(bias) => head.copy_from_slice(&bias[first..][..width]),
                None => head.fill(0.0),
            }
            for (tap, row) in rows.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(&weight[tap * channels + first..][..width]);
            }
            rest = tail;
        }
        Self { taps, channels, packed }
    }

    /// Weights that [`PackedDepthwise::pack`] packed before, for the same sizes.
    ///
    /// # Panics
    ///
    /// If `packed` is shorter than [`PackedDepthwise::len`] or the channels too few.
    #[must_use]
    pub fn from_packed(taps: usize, channels: usize, packed: &'a [f32]) -> Self {
        assert!(channels >= Self::LEAST_CHANNELS, "{channels} channels do not fill a block");
        Self { taps, channels, packed: &packed[..Self::len(taps, channels)] }
    }
}

/// First channel and width of every block.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let whole = channels / BLOCK;
    let last = match channels % BLOCK {
        0 => None,
        left if left > HALF && whole > 0 => Some((channels - BLOCK, BLOCK)),
        _ => channels.checked_sub(HALF).map(|first| (first, HALF)),
    };
    let first = (whole == 0 && channels > HALF).then_some((0, HALF));
    (0..whole).map(|block| (block * BLOCK, BLOCK)).chain(first).chain(last)
}

/// Floats of the ring that [`depthwise`] needs as scratch.
#[must_use]
pub fn depthwise_scratch_len(geometry: &Conv2dGeometry) -> usize {
    (geometry.ring_rows() + 1).saturating_mul(geometry.padded_width()).saturating_mul(BLOCK)
}

/// Computes the output rows from `first_row` on that fit into `output`; see
/// [`reference::depthwise`](super::reference::depthwise) for the formula.
///
/// Shapes: `input [H, W, C]`, `output [rows, OW, C]`.
///
/// # Panics
///
/// If channels or taps differ, a slice is shorter than its shape or [`depthwise_scratch_len`] says, `output` is not
/// whole rows, or this machine cannot run `level`.
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
    assert_eq!(input.count, geometry.input_pixels(), "input is not the geometry's map");
    assert_eq!((input.channels, output.channels), (weights.channels, weights.channels), "channels differ");
    assert_eq!(weights.taps, geometry.taps(), "taps differ");
    assert_eq!(output.count % geometry.output[1], 0, "output is not whole rows");
    assert!(first_row + output.count / geometry.output[1] <= geometry.output[0], "rows beyond the output map");
    let scratch = &mut scratch[..depthwise_scratch_len(geometry)];
    let rows = Rows { geometry, input, clamp, first_row };
    let mut packed = weights.packed;
    for (first, width) in blocks(weights.channels) {
        let (block, rest) = packed.split_at((weights.taps + 1) * width);
        packed = rest;
        let block = Block { first, packed: block };
        match (level.token(), width) {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(Level::Avx512(simd)), BLOCK) => {
                rows.run::<_, fearless_simd::f32x16<_>, BLOCK>(simd, block, output, scratch);
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(Level::Avx512(simd)), _) => rows.run::<_, f32x8<_>, HALF>(simd, block, output, scratch),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(Level::Avx2(simd)), BLOCK) => rows.run::<_, f32x8<_>, BLOCK>(simd, block, output, scratch),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(Level::Avx2(simd)), _) => rows.run::<_, f32x8<_>, HALF>(simd, block, output, scratch),
            // SSE4.2 adds nothing these loops use.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Some(level @ (Level::Sse2(_) | Level::Sse4_2(_))), width) => {
                rows.run_narrow(level.as_sse2().expect("SSE4.2 includes SSE2"), width, block, output, scratch);
            }
            #[cfg(target_arch = "aarch64")]
            (Some(Level::Neon(simd)), width) => rows.run_narrow(simd, width, block, output, scratch),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (Some(Level::WasmSimd128(simd)), width) => rows.run_narrow(simd, width, block, output, scratch),
            (Some(Level::Fallback(simd)), width) => rows.run_narrow(simd, width, block, output, scratch),
            _ => unreachable!("this machine cannot run {level}"),
        }
    }
}

/// A block of channels: the first one, and bias and taps.
#[derive(Clone, Copy)]
struct Block<'a> {
    first: usize,
    packed: &'a [f32],
}

/// What every block shares.
#[derive(Clone, Copy)]
struct Rows<'a> {
    geometry: &'a Conv2dGeometry,
    input: Pixels<'a, f32>,
    clamp: Clamp<f32>,
    first_row: usize,
}

impl Rows<'_> {
    /// Vectors of four floats, whatever the block.
    #[inline(always)]
    fn run_narrow<S: Simd>(
        &self,
        simd: S,
        width: usize,
        block: Block<'_>,
        output: &mut PixelsMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        match width {
            BLOCK => self.run::<_, f32x4<_>, BLOCK>(simd, block, output, scratch),
            _ => self.run::<_, f32x4<_>, HALF>(simd, block, output, scratch),
        }
    }

    /// One block of `B` channels.
    #[inline(always)]
    fn run<S: Simd, V: SimdFloat<S, Element = f32>, const B: usize>(
        &self,
        simd: S,
        block: Block<'_>,
        output: &mut PixelsMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let g = self.geometry;
                let (columns, pitch) = (g.output[1], output.pitch);
                let width = g.padded_width();
                let (slots, _) = scratch[..(g.ring_rows() + 1) * width * B].as_chunks_mut::<B>();
                slots.fill([0.0; B]);
                let mut ring = Ring::new(g, self.first_row);
                for line in 0..output.count / columns {
                    let rows = ring.advance(
                        self.first_row + line,
                        #[inline(always)]
                        |row, slot| self.copy_row(row, block.first, &mut slots[slot * width..][..width]),
                    );
                    let output = &mut output.data[line * columns * pitch + block.first..];
                    let line = Line { ring: &*slots, rows, pitch };
                    match (g.kernel, g.stride, g.dilation) {
                        ([3, 3], [1, 1], [1, 1]) => self.line::<S, V, B, 3, 1>(simd, block.packed, line, output),
                        ([3, 3], [2, 2], [1, 1]) => self.line::<S, V, B, 3, 2>(simd, block.packed, line, output),
                        ([5, 5], [1, 1], [1, 1]) => self.line::<S, V, B, 5, 1>(simd, block.packed, line, output),
                        ([5, 5], [2, 2], [1, 1]) => self.line::<S, V, B, 5, 2>(simd, block.packed, line, output),
                        _ => self.any_line::<S, V, B>(simd, block.packed, line, output),
                    }
                }
            },
        );
    }

    /// Copies a block of channels of row `row` of the input into the ring, between the zeros.
    #[inline(always)]
    fn copy_row<const B: usize>(&self, row: usize, channel: usize, slot: &mut [[f32; B]]) {
        let Conv2dGeometry { input: [_, width], before, .. } = *self.geometry;
        let from = &self.input.data[row * width * self.input.pitch + channel..];
        for (to, from) in slot[before[1]..][..width].iter_mut().zip(from.chunks(self.input.pitch)) {
            to.copy_from_slice(&from[..B]);
        }
    }

    /// The ring from kernel row `tap` of the line on.
    #[inline(always)]
    fn row<'r, const B: usize>(&self, line: Line<'r, B>, tap: usize) -> &'r [[f32; B]] {
        &line.ring[line.rows.place(tap) * self.geometry.padded_width()..]
    }

    /// One output row of kernels `K` wide, without dilation.
    #[inline(always)]
    fn line<S: Simd, V: SimdFloat<S, Element = f32>, const B: usize, const K: usize, const STRIDE: usize>(
        &self,
        simd: S,
        packed: &[f32],
        line: Line<'_, B>,
        output: &mut [f32],
    ) {
        let columns = self.geometry.output[1];
        let mut rows = [line.ring; K];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = self.row(line, i);
        }
        // Rows by a number the compiler does not know: were it to unroll them too, it would run out of registers.
        let rows = &rows[..self.geometry.kernel[0]];
        let mut x = 0;
        while x < columns {
            // The last tile may repeat columns of the one before.
            let tile = match columns - x {
                5.. if columns >= 8 => 8,
                2.. if columns >= 4 => 4,
                _ => 1,
            };
            x = x.min(columns - tile);
            let output = &mut output[x * line.pitch..];
            for channel in (0..B).step_by(V::LEN) {
                match tile {
                    8 => self.tile::<S, V, B, K, STRIDE, 8>(simd, packed, rows, x, channel, output, line.pitch),
                    4 => self.tile::<S, V, B, K, STRIDE, 4>(simd, packed, rows, x, channel, output, line.pitch),
                    _ => self.tile::<S, V, B, K, STRIDE, 1>(simd, packed, rows, x, channel, output, line.pitch),
                }
            }
            x += tile;
        }
    }

    /// One vector of `OUTPUTS` neighbouring outputs.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a part of `line` for each number of outputs")]
    fn tile<
        S: Simd,
        V: SimdFloat<S, Element = f32>,
        const B: usize,
        const K: usize,
        const STRIDE: usize,
        const OUTPUTS: usize,
    >(
        &self,
        simd: S,
        packed: &[f32],
        rows: &[&[[f32; B]]],
        x: usize,
        channel: usize,
        output: &mut [f32],
        pitch: usize,
    ) {
        let (packed, _) = packed.as_chunks::<B>();
        let load = |block: &[f32; B]| V::from_slice(simd, &block[channel..][..V::LEN]);
        let mut sums = [load(&packed[0]); OUTPUTS];
        for (row, taps) in rows.iter().zip(packed[1..].as_chunks::<K>().0) {
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
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        unroll!(o < OUTPUTS, 8, {
            high.min(low.max(sums[o])).store_slice(&mut output[o * pitch + channel..][..V::LEN]);
        });
    }

    /// One output row with any kernel, stride and dilation.
    #[inline(always)]
    fn any_line<S: Simd, V: SimdFloat<S, Element = f32>, const B: usize>(
        &self,
        simd: S,
        packed: &[f32],
        line: Line<'_, B>,
        output: &mut [f32],
    ) {
        let g = self.geometry;
        let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
        let (packed, _) = packed.as_chunks::<B>();
        for (tile, output) in output.chunks_mut(4 * line.pitch).enumerate().take(g.output[1].div_ceil(4)) {
            // The last tile repeats its last column.
            let most = g.output[1] - 4 * tile - 1;
            let columns = [0, 1, 2, 3].map(|o: usize| (4 * tile + o.min(most)) * g.stride[1]);
            for channel in (0..B).step_by(V::LEN) {
                let mut sums = [V::from_slice(simd, &packed[0][channel..][..V::LEN]); 4];
                for (i, weight) in packed[1..].chunks_exact(g.kernel[1]).enumerate() {
                    let row = self.row(line, i);
                    for (j, weight) in weight.iter().enumerate() {
                        let weight = V::from_slice(simd, &weight[channel..][..V::LEN]);
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            let pixel = &row[column + j * g.dilation[1]];
                            *sum = V::from_slice(simd, &pixel[channel..][..V::LEN]).mul_add(weight, *sum);
                        }
                    }
                }
                for (o, sum) in sums.into_iter().enumerate().take(most + 1) {
                    high.min(low.max(sum)).store_slice(&mut output[o * line.pitch + channel..][..V::LEN]);
                }
            }
        }
    }
}

/// Where one output row of a block of channels comes from, and its pitch.
#[derive(Clone, Copy)]
struct Line<'a, const B: usize> {
    /// The rows of the ring, one after the other, then a row of zeros.
    ring: &'a [[f32; B]],
    /// Where the kernel rows are in it.
    rows: RingRows,
    /// Floats from one output pixel to the next.
    pitch: usize,
}
