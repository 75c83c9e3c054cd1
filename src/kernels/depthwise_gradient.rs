//! Gradients of a depthwise convolution, a block of channels at a time.
//!
//! Both read maps as [`Plane`]s: one block of 16 channels, a cache line of each pixel, with a border of zeros that
//! stands for the padding, so that no tap needs a branch. Differs from [`reference`](mod@super::reference) in this:
//!
//! 1. The gradient by the input gathers: an input pixel sums the outputs it took part in, in registers, eight pixels at
//!    a time, and is written once. With a stride, neighbouring inputs belong to different taps; those `stride` apart
//!    share theirs, so each *phase* of a row is a small convolution of its own, and no product with a zero is computed.
//!    Rows of three taps at stride 1 load each output once for all of them. 3x3 kernels at stride 2 compute two rows of
//!    inputs at once, and load each output of a kernel row once for both phases.
//! 2. The gradient by the weight keeps all taps of a 3x3 kernel (or those of a row of another kernel) in registers
//!    while a row of outputs passes by.

use core::ops::Range;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::f32x8;
use fearless_simd::prelude::*;
use fearless_simd::{Level, f32x4};

use super::plane::with_vector;
use super::{BLOCK, SimdLevel};
use crate::shape::Conv2dGeometry;

/// One block of channels of a map with a border of zeros.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Pixels, row after row, borders included.
    pub data: &'a [[f32; BLOCK]],
    /// Pixels of a row, borders included.
    pub width: usize,
    /// Rows above and pixels to the left of the map.
    pub before: [usize; 2],
}

impl<'a> Plane<'a> {
    /// Pixels from `(row, column)` of the map on; both may lie in the border.
    #[inline(always)]
    fn from(self, [row, column]: [isize; 2]) -> &'a [[f32; BLOCK]] {
        let place = |at: isize, before: usize| before.checked_add_signed(at).expect("inside the border");
        &self.data[place(row, self.before[0]) * self.width + place(column, self.before[1])..]
    }
}

/// Most rows and columns of a kernel here; larger ones are [`reference`](mod@super::reference)'s.
pub const MOST_TAPS: usize = 16;

/// Columns of zeros that [`depthwise_input_gradient`] reads to the left and right of the gradient of the output.
#[must_use]
pub fn gradient_border(geometry: &Conv2dGeometry) -> [usize; 2] {
    let extent = (geometry.kernel[1] - 1) * geometry.dilation[1];
    let (stride, before) = (geometry.stride[1], geometry.before[1]);
    // The last tap of the first input, and the first tap of the last one.
    let left = extent.saturating_sub(before).div_ceil(stride);
    let last = (geometry.input[1] - 1 + before) / stride;
    [left, (last + 1).saturating_sub(geometry.output[1])]
}

/// `d_input[y, x, c] = sum over i, j of d_output[(y + top - i * dilation) / stride, .., c] * weight[i, j, c]`, over the
/// taps whose quotients are whole and inside the map.
///
/// Shapes: `d_output` a plane of the output with at least [`gradient_border`] to its left and right; `weight [KH *
/// KW]`, `d_input [H * W]`, both in blocks.
///
/// # Panics
///
/// If the plane is too short, weight or `d_input` is of another size, the kernel has more than [`MOST_TAPS`] rows or
/// columns, or this machine cannot run `level`.
pub fn depthwise_input_gradient(
    level: SimdLevel,
    geometry: &Conv2dGeometry,
    d_output: Plane<'_>,
    weight: &[[f32; BLOCK]],
    d_input: &mut [[f32; BLOCK]],
) {
    assert!(geometry.kernel.iter().all(|&taps| taps <= MOST_TAPS), "kernel of more than {MOST_TAPS} rows or columns");
    assert_eq!((weight.len(), d_input.len()), (geometry.taps(), geometry.input_pixels()), "sizes differ");
    let pass = InputGradient { geometry, d_output, weight };
    with_vector!(level, pass.run(d_input));
}

/// `sums[i, j, c] += sum over y, x of input[y * stride - top + i * dilation, .., c] * d_output[y, x, c]`
///
/// Shapes: `input` a plane with the padding's border, `d_output` a plane; `sums [KH * KW]`, in blocks.
///
/// # Panics
///
/// If a slice is too short or this machine cannot run `level`.
pub fn depthwise_weight_gradient(
    level: SimdLevel,
    geometry: &Conv2dGeometry,
    input: Plane<'_>,
    d_output: Plane<'_>,
    sums: &mut [[f32; BLOCK]],
) {
    assert_eq!(sums.len(), geometry.taps(), "sizes differ");
    let pass = WeightGradient { geometry, input, d_output };
    with_vector!(level, pass.run(sums));
}

/// Taps of one axis that an input took part in, each with the output it was part of, counted from the input's own.
#[derive(Clone, Copy)]
struct Taps {
    count: usize,
    tap: [usize; MOST_TAPS],
    output: [isize; MOST_TAPS],
}

impl Taps {
    /// Those of input `at`, whose outputs are `(at + before - tap * dilation) / stride`.
    fn of(g: &Conv2dGeometry, axis: usize, at: usize) -> Self {
        let mut taps = Self { count: 0, tap: [0; MOST_TAPS], output: [0; MOST_TAPS] };
        let stride = g.stride[axis].cast_signed();
        for tap in 0..g.kernel[axis] {
            let place = (at + g.before[axis]).cast_signed() - (tap * g.dilation[axis]).cast_signed();
            if place.rem_euclid(stride) == 0 {
                taps.tap[taps.count] = tap;
                taps.output[taps.count] = place.div_euclid(stride);
                taps.count += 1;
            }
        }
        taps
    }

    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = (usize, isize)> {
        self.tap.iter().copied().zip(self.output).take(self.count)
    }
}

/// A row of outputs, borders included, that a row of inputs took part in, and the taps of its kernel row.
#[derive(Clone, Copy, Default)]
struct Row<'a> {
    outputs: &'a [[f32; BLOCK]],
    taps: &'a [[f32; BLOCK]],
}

/// The rows of outputs that one row of inputs took part in.
#[derive(Default)]
struct Rows<'a> {
    rows: [Row<'a>; MOST_TAPS],
    count: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().copied().take(self.count)
    }
}

struct InputGradient<'a> {
    geometry: &'a Conv2dGeometry,
    d_output: Plane<'a>,
    weight: &'a [[f32; BLOCK]],
}

impl InputGradient<'_> {
    #[inline(always)]
    fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, d_input: &mut [[f32; BLOCK]]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let g = self.geometry;
                let is_quad = |axis: usize| (g.kernel[axis], g.stride[axis], g.dilation[axis]) == (3, 2, 1);
                let [rows, columns] = if is_quad(0) && is_quad(1) { g.input.map(|size| size & !1) } else { [0; 2] };
                if columns > 0 {
                    self.quads::<S, V>(simd, columns / 2, d_input);
                }
                self.phases::<S, V>(simd, 0..rows, columns, d_input);
                self.phases::<S, V>(simd, rows..g.input[0], 0, d_input);
            },
        );
    }

    /// Rows `rows` of inputs, from a column on: those that share their taps after each other.
    #[inline(always)]
    fn phases<S: Simd, V: SimdFloat<S, Element = f32>>(
        &self,
        simd: S,
        rows: Range<usize>,
        column: usize,
        d_input: &mut [[f32; BLOCK]],
    ) {
        let (g, width) = (self.geometry, self.geometry.input[1]);
        let d_input = &mut d_input[..rows.end * width];
        let mut found = Rows::default();
        for y in rows.start..rows.end.min(rows.start + g.stride[0]) {
            let taps = Taps::of(g, 0, y);
            for x in column..width.min(column + g.stride[1]) {
                let columns = Taps::of(g, 1, x);
                for (step, row) in d_input.chunks_exact_mut(width).skip(y).step_by(g.stride[0]).enumerate() {
                    self.find(&taps, step, &mut found);
                    self.phase::<S, V>(simd, &found, &columns, &mut row[x..]);
                }
            }
        }
    }

    /// Finds the rows that the row of inputs `step` strides below that of `taps` took part in, without those that lie
    /// outside the plane: rows above the first output may be there too, of a piece of a map.
    #[inline(always)]
    fn find<'s>(&'s self, taps: &Taps, step: usize, rows: &mut Rows<'s>) {
        let (kernel_width, Plane { data, width, before: [above, _] }) = (self.geometry.kernel[1], self.d_output);
        rows.count = 0;
        for (i, output) in taps.iter() {
            let row = (output + step.cast_signed() + above.cast_signed()).cast_unsigned();
            if row < above + self.geometry.output[0] {
                let taps = &self.weight[i * kernel_width..][..kernel_width];
                rows.rows[rows.count] = Row { outputs: &data[row * width..][..width], taps };
                rows.count += 1;
            }
        }
    }

    /// The place of a column of the map of outputs in a row of the plane.
    #[inline(always)]
    fn in_row(&self, column: isize) -> usize {
        self.d_output.before[1].checked_add_signed(column).expect("inside the border")
    }

    /// Three taps at stride 2 both ways: `count` pairs of pixels of each pair of rows. One pixel of a pair took part in
    /// two outputs, the other in one; so it is with rows.
    #[inline(always)]
    fn quads<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, count: usize, d_input: &mut [[f32; BLOCK]]) {
        // Four sums for each, three weights and an output: 20 of 32 registers, 12 of 16.
        let most = const { if V::LEN == BLOCK || cfg!(target_arch = "aarch64") { 4 } else { 2 } };
        let (g, Plane { data, width, before: [above, _] }) = (self.geometry, self.d_output);
        let taps: &[[f32; BLOCK]; 9] = self.weight.first_chunk().expect("nine taps");
        let row = |at: usize| if at < above + g.output[0] { &data[at * width..][..width] } else { &[] };
        for (step, two_rows) in d_input.chunks_exact_mut(2 * g.input[1]).enumerate() {
            // Of the rows of outputs, the one that the first kernel row belongs to.
            let at = step + g.before[0].div_ceil(2) + above;
            let [next, last] = [row(at), row(at.wrapping_sub(1))];
            let (upper, lower) = two_rows.split_at_mut(g.input[1]);
            let (middle, double, single) =
                if g.before[0].is_multiple_of(2) { (next, upper, lower) } else { (last, lower, upper) };
            let mut pair = 0;
            while pair < count {
                let tile = match count - pair {
                    5 | 6 if most == 4 => 3,
                    rest => rest.min(most),
                };
                for channel in (0..BLOCK).step_by(V::LEN) {
                    let (at, outputs, rows) = ([pair, channel], [next, middle, last], [&mut *double, &mut *single]);
                    match tile {
                        4 => self.tile_of_quads::<S, V, 4>(simd, outputs, taps, at, rows),
                        3 => self.tile_of_quads::<S, V, 3>(simd, outputs, taps, at, rows),
                        2 => self.tile_of_quads::<S, V, 2>(simd, outputs, taps, at, rows),
                        _ => self.tile_of_quads::<S, V, 1>(simd, outputs, taps, at, rows),
                    }
                }
                pair += tile;
            }
        }
    }

    /// One vector of `PAIRS` pairs of the row that took part in two rows of outputs, and of the one that took part in
    /// one; `outputs` has each kernel row's, empty if it lies outside the plane.
    #[inline(always)]
    fn tile_of_quads<S: Simd, V: SimdFloat<S, Element = f32>, const PAIRS: usize>(
        &self,
        simd: S,
        outputs: [&[[f32; BLOCK]]; 3],
        taps: &[[f32; BLOCK]; 9],
        [pair, channel]: [usize; 2],
        rows: [&mut [[f32; BLOCK]]; 2],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let before = self.geometry.before[1];
        let zeros = [V::splat(simd, 0.0); PAIRS];
        let (mut doubles, mut singles) = ([zeros; 2], [zeros; 2]);
        // The output that the last tap of the first double pixel is of.
        let first = self.in_row((pair + before.div_ceil(2)).cast_signed() - 1);
        let double_at = before % 2;
        let single_at = 1 - double_at;
        unroll!(i < 3, 3, {
            if !outputs[i].is_empty() {
                let (left, middle, right) = (load(&taps[3 * i]), load(&taps[3 * i + 1]), load(&taps[3 * i + 2]));
                let outputs = &outputs[i][first..][..=PAIRS];
                unroll!(o < PAIRS, 4, {
                    let sum = load(&outputs[o + 1]).mul_add(left, doubles[i % 2][o]);
                    doubles[i % 2][o] = load(&outputs[o]).mul_add(right, sum);
                    singles[i % 2][o] = load(&outputs[o + single_at]).mul_add(middle, singles[i % 2][o]);
                });
            }
        });
        let [double_row, single_row] = rows.map(|row| &mut row[2 * pair..][..2 * PAIRS]);
        unroll!(o < PAIRS, 4, {
            doubles[0][o].store_slice(&mut double_row[2 * o + double_at][channel..][..V::LEN]);
            singles[0][o].store_slice(&mut double_row[2 * o + single_at][channel..][..V::LEN]);
            doubles[1][o].store_slice(&mut single_row[2 * o + double_at][channel..][..V::LEN]);
            singles[1][o].store_slice(&mut single_row[2 * o + single_at][channel..][..V::LEN]);
        });
    }

    /// Every `stride`-th pixel of a row.
    #[inline(always)]
    fn phase<S: Simd, V: SimdFloat<S, Element = f32>>(
        &self,
        simd: S,
        rows: &Rows<'_>,
        columns: &Taps,
        d_input: &mut [[f32; BLOCK]],
    ) {
        let g = self.geometry;
        let is_three = (g.kernel[1], g.stride[1], g.dilation[1]) == (3, 1, 1);
        let count = d_input.len().div_ceil(g.stride[1]);
        let mut x = 0;
        while x < count {
            // The last tile may repeat pixels of the one before.
            let tile = match count - x {
                7 | 14 | 21 | 28 => 7,
                3 | 6 if is_three => 3,
                5.. if count >= 8 => 8,
                2.. if count >= 4 => 4,
                _ => 1,
            };
            x = x.min(count - tile);
            for channel in (0..BLOCK).step_by(V::LEN) {
                match tile {
                    8 if is_three => self.tile_of_three::<S, V, 8>(simd, rows, [x, channel], d_input),
                    7 if is_three => self.tile_of_three::<S, V, 7>(simd, rows, [x, channel], d_input),
                    4 if is_three => self.tile_of_three::<S, V, 4>(simd, rows, [x, channel], d_input),
                    3 => self.tile_of_three::<S, V, 3>(simd, rows, [x, channel], d_input),
                    8 => self.tile::<S, V, 8>(simd, rows, columns, [x, channel], d_input),
                    7 => self.tile::<S, V, 7>(simd, rows, columns, [x, channel], d_input),
                    4 => self.tile::<S, V, 4>(simd, rows, columns, [x, channel], d_input),
                    _ => self.tile::<S, V, 1>(simd, rows, columns, [x, channel], d_input),
                }
            }
            x += tile;
        }
    }

    /// One vector of `PIXELS` pixels of a phase.
    #[inline(always)]
    fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const PIXELS: usize>(
        &self,
        simd: S,
        rows: &Rows<'_>,
        columns: &Taps,
        [x, channel]: [usize; 2],
        d_input: &mut [[f32; BLOCK]],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let mut sums = [V::splat(simd, 0.0); PIXELS];
        for Row { outputs, taps } in rows.iter() {
            for (j, column) in columns.iter() {
                let weight = load(&taps[j]);
                let pixels = &outputs[self.in_row(x.cast_signed() + column)..][..PIXELS];
                unroll!(o < PIXELS, 8, { sums[o] = load(&pixels[o]).mul_add(weight, sums[o]) });
            }
        }
        let stride = self.geometry.stride[1];
        let d_input = &mut d_input[x * stride..][..=(PIXELS - 1) * stride];
        unroll!(o < PIXELS, 8, { sums[o].store_slice(&mut d_input[o * stride][channel..][..V::LEN]) });
    }

    /// As [`InputGradient::tile`] for rows of three taps without stride or dilation: each output is loaded once for all
    /// of them, with their weights in registers.
    #[inline(always)]
    fn tile_of_three<S: Simd, V: SimdFloat<S, Element = f32>, const PIXELS: usize>(
        &self,
        simd: S,
        rows: &Rows<'_>,
        [x, channel]: [usize; 2],
        d_input: &mut [[f32; BLOCK]],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let mut sums = [V::splat(simd, 0.0); PIXELS];
        // Where the last tap finds the first pixel's output.
        let first = self.in_row((x + self.geometry.before[1]).cast_signed() - 2);
        for Row { outputs, taps } in rows.iter() {
            let mut weights = [sums[0]; 3];
            unroll!(j < 3, 3, { weights[j] = load(&taps[j]) });
            let outputs = &outputs[first..][..PIXELS + 2];
            unroll!(column < PIXELS + 2, 14, {
                let output = load(&outputs[column]);
                unroll!(j < 3, 3, {
                    if column + j >= 2 && column + j - 2 < PIXELS {
                        sums[column + j - 2] = output.mul_add(weights[j], sums[column + j - 2]);
                    }
                });
            });
        }
        let d_input = &mut d_input[x..][..PIXELS];
        unroll!(o < PIXELS, 8, { sums[o].store_slice(&mut d_input[o][channel..][..V::LEN]) });
    }
}

struct WeightGradient<'a> {
    geometry: &'a Conv2dGeometry,
    input: Plane<'a>,
    d_output: Plane<'a>,
}

impl WeightGradient<'_> {
    #[inline(always)]
    fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, sums: &mut [[f32; BLOCK]]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let g = self.geometry;
                for channel in (0..BLOCK).step_by(V::LEN) {
                    match (g.kernel, g.dilation) {
                        ([3, 3], [1, 1]) => self.rows::<S, V, 3, 3>(simd, 0, channel, sums),
                        ([_, 5], [_, 1]) => {
                            for i in 0..g.kernel[0] {
                                self.rows::<S, V, 1, 5>(simd, i, channel, &mut sums[i * 5..]);
                            }
                        }
                        _ => {
                            for (tap, sum) in sums.iter_mut().enumerate() {
                                self.tap::<S, V>(simd, [tap / g.kernel[1], tap % g.kernel[1]], channel, sum);
                            }
                        }
                    }
                }
            },
        );
    }

    /// The row of the input that kernel row `i` reads for row `y` of the output, from kernel column `j` on.
    #[inline(always)]
    fn input_row(&self, y: usize, [i, j]: [usize; 2]) -> &[[f32; BLOCK]] {
        let g = self.geometry;
        let row = (y * g.stride[0] + i * g.dilation[0]).cast_signed() - g.before[0].cast_signed();
        self.input.from([row, (j * g.dilation[1]).cast_signed() - g.before[1].cast_signed()])
    }

    /// All taps of `ROWS` kernel rows from `first` on of a kernel `COLUMNS` wide.
    #[inline(always)]
    fn rows<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const COLUMNS: usize>(
        &self,
        simd: S,
        first: usize,
        channel: usize,
        sums: &mut [[f32; BLOCK]],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let ([height, width], stride) = (self.geometry.output, self.geometry.stride[1]);
        let mut tile = [[V::splat(simd, 0.0); COLUMNS]; ROWS];
        for y in 0..height {
            let d_output = &self.d_output.from([y.cast_signed(), 0])[..width];
            let mut inputs = [d_output; ROWS];
            unroll!(i < ROWS, 3, { inputs[i] = &self.input_row(y, [first + i, 0])[..(width - 1) * stride + COLUMNS] });
            for (x, d_output) in d_output.iter().enumerate() {
                let d_output = load(d_output);
                unroll!(i < ROWS, 3, {
                    let pixels = &inputs[i][x * stride..][..COLUMNS];
                    unroll!(j < COLUMNS, 5, { tile[i][j] = load(&pixels[j]).mul_add(d_output, tile[i][j]) });
                });
            }
        }
        unroll!(i < ROWS, 3, {
            unroll!(j < COLUMNS, 5, {
                let sum = &mut sums[i * COLUMNS + j][channel..][..V::LEN];
                (V::from_slice(simd, sum) + tile[i][j]).store_slice(sum);
            });
        });
    }

    /// One tap of any kernel; four sums take turns, for one would wait for itself.
    #[inline(always)]
    fn tap<S: Simd, V: SimdFloat<S, Element = f32>>(
        &self,
        simd: S,
        tap: [usize; 2],
        channel: usize,
        sum: &mut [f32; BLOCK],
    ) {
        let load = |pixel: &[f32; BLOCK]| V::from_slice(simd, &pixel[channel..][..V::LEN]);
        let ([height, width], stride) = (self.geometry.output, self.geometry.stride[1]);
        let mut sums = [V::splat(simd, 0.0); 4];
        for y in 0..height {
            let d_output = &self.d_output.from([y.cast_signed(), 0])[..width];
            let inputs = self.input_row(y, tap)[..=(width - 1) * stride].iter().step_by(stride);
            for ((at, d_output), input) in d_output.iter().enumerate().zip(inputs) {
                sums[at % 4] = load(input).mul_add(load(d_output), sums[at % 4]);
            }
        }
        let sum = &mut sum[channel..][..V::LEN];
        ((V::from_slice(simd, sum) + sums[0] + sums[1]) + (sums[2] + sums[3])).store_slice(sum);
    }
}
