//! Every kernel against its reference: every SIMD level, awkward sizes, every padding.
//!
//! The reference runs in `f64` over the same values; the tolerance of an output is the bound of a sum of `k` products
//! in `f32`, `(k + 2) * eps * sum of |x * w|`, which the reference computes too, from the magnitudes.

use mobilenet::kernels::reference::Pooling;
use mobilenet::kernels::{
    BLOCK, Clamp, Group, KeptRows, PackedDepthwise, PackedWeights, PaddedRows, Pixels, PixelsMut, Strides, conv,
    conv_scratch_len, depthwise, depthwise_in_place, depthwise_scratch_len, global_average, global_max, linear,
    pointwise, pool, reference,
};
use mobilenet::shape::Conv2dGeometry;
use mobilenet::{Padding, SimdLevel, Window};
use proptest::prelude::*;

use crate::common::{levels, values};

const CHANNELS: [usize; 10] = [1, 3, 7, 8, 15, 16, 17, 33, 96, 1000];
/// Less than a block and more, by half a block and by less.
const BLOCKED_CHANNELS: [usize; 8] = [1, 3, 8, 17, 24, 40, 56, 100];
const MAPS: [[usize; 2]; 5] = [[1, 1], [1, 7], [5, 3], [7, 7], [13, 14]];
const KERAS_V1: Padding = Padding::Explicit { top: 0, bottom: 1, left: 0, right: 1 };
const LOPSIDED: Padding = Padding::Explicit { top: 2, bottom: 0, left: 1, right: 3 };
const PADDINGS: [Padding; 5] = [Padding::Same, Padding::VALID, Padding::Symmetric(1), KERAS_V1, LOPSIDED];
const CLAMPS: [Clamp<f32>; 3] = [
    Clamp { low: 0.0, high: 6.0 },
    Clamp { low: 0.0, high: f32::INFINITY },
    Clamp { low: f32::NEG_INFINITY, high: f32::INFINITY },
];

/// What lies between pixels, before and after; and in the lanes of a block that carry no channel, before.
const GAP: f32 = 77.0;

/// Where a map lies in memory.
#[derive(Clone, Copy, Debug)]
struct Place {
    size: [usize; 2],
    channels: usize,
    strides: Strides,
    blocked: bool,
    /// Elements before the first pixel, and all.
    start: usize,
    len: usize,
}

impl Place {
    /// `[H, W, C]`, with a gap after each pixel.
    fn last(size: [usize; 2], channels: usize, gap: usize) -> Self {
        let pixel = channels + gap;
        let strides = Strides { row: size[1] * pixel, pixel, block: BLOCK };
        Self { size, channels, strides, blocked: false, start: 0, len: size[0] * strides.row }
    }

    /// `[H, C / 16, W, 16]`, with gaps of so many pixels left and right of each row.
    fn rows(size: [usize; 2], channels: usize, [left, right]: [usize; 2]) -> Self {
        let block = (left + size[1] + right) * BLOCK;
        let strides = Strides { row: channels.div_ceil(BLOCK) * block, pixel: BLOCK, block };
        Self { size, channels, strides, blocked: true, start: left * BLOCK, len: size[0] * strides.row }
    }

    /// `[C / 16, H, W, 16]`, with such gaps, and one of a row after the last.
    fn planar(size: [usize; 2], channels: usize, [left, right]: [usize; 2]) -> Self {
        let row = (left + size[1] + right) * BLOCK;
        let strides = Strides { row, pixel: BLOCK, block: (size[0] + 1) * row };
        let len = channels.div_ceil(BLOCK) * strides.block;
        Self { size, channels, strides, blocked: true, start: left * BLOCK, len }
    }

    /// One of the three, by number.
    fn any(order: usize, size: [usize; 2], channels: usize, gaps: [usize; 2]) -> Self {
        match order % 3 {
            0 => Self::rows(size, channels, gaps),
            1 => Self::planar(size, channels, gaps),
            _ => Self::last(size, channels, gaps[0]),
        }
    }

    fn elements(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// Neighbouring elements in the order of `[H, W, C]`: where they start and how many they are.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let Self { size: [height, width], channels, strides, blocked, start, .. } = *self;
        let step = if blocked { BLOCK } else { channels };
        let pixels =
            (0..height).flat_map(move |y| (0..width).map(move |x| start + y * strides.row + x * strides.pixel));
        pixels.flat_map(move |at| {
            (0..channels).step_by(step).map(move |c| (at + strides.channel(c), step.min(channels - c)))
        })
    }

    /// Elements in the order of `[H, W, C]` at their places, gaps between them.
    fn lay(&self, elements: &[f32]) -> Vec<f32> {
        let mut data = vec![GAP; self.len];
        let mut rest = elements;
        for (at, count) in self.runs() {
            let (run, tail) = rest.split_at(count);
            data[at..][..count].copy_from_slice(run);
            rest = tail;
        }
        data
    }

    fn pixels<'a>(&self, data: &'a [f32]) -> Pixels<'a, f32> {
        Pixels::strided(&data[self.start..], self.size, self.channels, self.strides)
    }

    /// Rows from `first` on, and channels from `first_channel` on.
    fn part_mut<'a>(
        &self,
        data: &'a mut [f32],
        [first, rows]: [usize; 2],
        [first_channel, channels]: [usize; 2],
    ) -> PixelsMut<'a, f32> {
        let start = self.start + first * self.strides.row + self.strides.channel(first_channel);
        PixelsMut::strided(&mut data[start..], [rows, self.size[1]], channels, self.strides)
    }

    fn pixels_mut<'a>(&self, data: &'a mut [f32]) -> PixelsMut<'a, f32> {
        self.part_mut(data, [0, self.size[0]], [0, self.channels])
    }

    fn pack<'a>(
        &self,
        level: SimdLevel,
        weight: Pixels<'_, f32>,
        bias: &[f32],
        packed: &'a mut [f32],
    ) -> PackedWeights<'a> {
        let pack = if self.blocked { PackedWeights::pack_blocked } else { PackedWeights::pack };
        pack(level, weight, Some(bias), packed)
    }

    /// Compares an output with the reference's `[expected, sum of magnitudes]` and checks that the gaps were left
    /// alone.
    #[track_caller]
    fn check(&self, output: &[f32], [expected, bound]: &[Vec<f64>; 2], terms: usize, what: &str) {
        let mut gaps = output.to_vec();
        let mut at = 0;
        for (start, count) in self.runs() {
            for &found in &output[start..][..count] {
                let tolerance = (terms as f64 + 2.0) * f64::from(f32::EPSILON) * bound[at];
                let difference = (f64::from(found) - expected[at]).abs();
                let [pixel, c] = [at / self.channels, at % self.channels];
                assert!(difference <= tolerance, "{what}: pixel {pixel} channel {c}: {found} for {}", expected[at]);
                at += 1;
            }
            gaps[start..][..if self.blocked { BLOCK } else { count }].fill(GAP);
        }
        assert_eq!(at, expected.len(), "{what}: elements");
        assert!(gaps.iter().all(|&value| value.to_bits() == GAP.to_bits()), "{what}: gap overwritten");
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value.abs())).collect()
}

fn wide(clamp: Clamp<f32>) -> Clamp<f64> {
    Clamp { low: clamp.low.into(), high: clamp.high.into() }
}

/// Runs a reference over the values and, without a clamp, over their magnitudes.
fn both<const N: usize>(
    arguments: [&[f32]; N],
    clamp: Clamp<f32>,
    run: impl Fn([Vec<f64>; N], Clamp<f64>) -> Vec<f64>,
) -> [Vec<f64>; 2] {
    [run(arguments.map(widen), wide(clamp)), run(arguments.map(magnitudes), Clamp::none())]
}

fn check_pointwise(input: Place, output: Place, residual: Option<Place>, clamp: Clamp<f32>) {
    let what = format!("pointwise {input:?} to {output:?} residual {residual:?}");
    let (size, inputs, outputs) = (output.size, input.channels, output.channels);
    let elements = values("input", input.elements());
    let (weight, bias) = (values("weight", inputs * outputs), values("bias", outputs));
    let added = residual.map_or_else(|| vec![0.0; output.elements()], |map| values("residual", map.elements()));
    let expected = both([&elements, &weight, &bias, &added], clamp, |[input, weight, bias, added], clamp| {
        let mut output = vec![0.0; added.len()];
        let added = Some(Pixels::dense(&added, size, outputs));
        let to = &mut PixelsMut::dense(&mut output, size, outputs);
        reference::pointwise(Pixels::dense(&input, size, inputs), &weight, Some(&bias), added, clamp, to);
        output
    });
    let (from, added) = (input.lay(&elements), residual.map(|map| (map, map.lay(&added))));
    for level in levels() {
        let mut packed = vec![0.0; PackedWeights::len(level, inputs, outputs)];
        let weights = output.pack(level, Pixels::dense(&weight, [1, inputs], outputs), &bias, &mut packed);
        let mut found = vec![GAP; output.len];
        let added = added.as_ref().map(|(map, data)| map.pixels(data));
        pointwise(&weights, input.pixels(&from), added, clamp, &mut output.pixels_mut(&mut found));
        output.check(&found, &expected, inputs, &format!("{what} {level}"));
        // What it prefetches, even from beyond the weights, changes nothing.
        for far in [7, usize::MAX / 2] {
            let mut again = vec![GAP; output.len];
            pointwise(&weights.with_far(far), input.pixels(&from), added, clamp, &mut output.pixels_mut(&mut again));
            assert!(found.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{what} {level} far {far}");
        }
    }
}

/// Values of a depthwise convolution, `[input, weight, bias]`, and what the reference makes of them.
fn depthwise_case(g: &Conv2dGeometry, channels: usize, clamp: Clamp<f32>) -> ([Vec<f32>; 3], [Vec<f64>; 2]) {
    let arguments =
        [values("input", g.input_pixels() * channels), values("weight", g.taps() * channels), values("bias", channels)];
    let expected = both(arguments.each_ref().map(Vec::as_slice), clamp, |[input, weight, bias], clamp| {
        let mut output = vec![0.0; g.output_pixels() * channels];
        let input = Pixels::dense(&input, g.input, channels);
        let to = &mut PixelsMut::dense(&mut output, g.output, channels);
        reference::depthwise(g, input, &weight, Some(&bias), clamp, 0, to);
        output
    });
    (arguments, expected)
}

fn check_depthwise(g: &Conv2dGeometry, channels: usize, gaps: [usize; 2], clamp: Clamp<f32>) {
    let what = format!("depthwise {channels} gaps {gaps:?} {g:?}");
    let ([input, weight, bias], expected) = depthwise_case(g, channels, clamp);
    let (from, to) = (Place::last(g.input, channels, gaps[0]), Place::last(g.output, channels, gaps[1]));
    let input = from.lay(&input);
    let mut packed = vec![0.0; PackedDepthwise::len(g.taps(), channels)];
    let weights = PackedDepthwise::pack(g.taps(), channels, &weight, Some(&bias), &mut packed);
    for level in levels() {
        let mut output = vec![GAP; to.len];
        let mut scratch = vec![f32::NAN; depthwise_scratch_len(g)];
        // In two parts, as two threads would.
        let rows = g.output[0] / 2;
        for [first, rows] in [[0, rows], [rows, g.output[0] - rows]] {
            let mut part = to.part_mut(&mut output, [first, rows], [0, channels]);
            depthwise(level, g, &weights, from.pixels(&input), clamp, first, &mut part, &mut scratch);
        }
        to.check(&output, &expected, g.taps(), &format!("{what} {level}"));
    }
}

/// Rows that are kept for a depthwise convolution in place.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// The whole map, for two parts as of two threads.
    All,
    /// As few as so many output rows at a time need.
    Ring(usize),
}

/// `orders` are those of [`Place::any`] without channels-last, for the kept rows and the output.
fn check_depthwise_in_place(
    g: &Conv2dGeometry,
    channels: usize,
    kept: Kept,
    orders: [usize; 2],
    gaps: [usize; 2],
    clamp: Clamp<f32>,
) {
    let what = format!("depthwise in place {channels} {kept:?} orders {orders:?} gaps {gaps:?} {g:?}");
    let ([input, weight, bias], expected) = depthwise_case(g, channels, clamp);
    let (places, lines) = match kept {
        Kept::All => (g.input[0], g.output[0].div_ceil(2)),
        Kept::Ring(lines) => (g.ring_rows() + (lines - 1) * g.stride[0], lines),
    };
    // Zeros are part of the kept rows, which the row of zeros follows.
    let width = g.padded_width();
    let from = Place::any(orders[0], [places + 1, width], channels, gaps);
    let to = Place::any(orders[1], g.output, channels, gaps);
    let mut packed = vec![f32::NAN; PackedDepthwise::len(g.taps(), channels)];
    let weights = PackedDepthwise::pack_blocked(g.taps(), channels, &weight, Some(&bias), &mut packed);
    for level in levels() {
        let mut rows = vec![f32::NAN; (places + 1) * width * channels];
        rows[places * width * channels..].fill(0.0);
        let mut output = vec![GAP; to.len];
        let mut next = 0;
        for first in (0..g.output[0]).step_by(lines) {
            let count = lines.min(g.output[0] - first);
            let needed = g.input_rows(first..first + count);
            for y in needed.start.max(next)..needed.end {
                let row = &mut rows[y % places * width * channels..][..width * channels];
                row.fill(0.0);
                row[g.before[1] * channels..][..g.input[1] * channels]
                    .copy_from_slice(&input[y * g.input[1] * channels..][..g.input[1] * channels]);
            }
            next = needed.end.max(next);
            let data = from.lay(&rows);
            let padded = PaddedRows { data: &data[from.start..], places, strides: from.strides };
            let mut part = to.part_mut(&mut output, [first, count], [0, channels]);
            depthwise_in_place(level, g, &weights, padded, clamp, first, &mut part);
        }
        to.check(&output, &expected, g.taps(), &format!("{what} {level}"));
    }
}

/// Groups of a convolution into blocks of channels are one.
fn check_conv(g: &Conv2dGeometry, groups: usize, input: Place, output: Place, clamp: Clamp<f32>) {
    let what = format!("conv {input:?} to {output:?} groups {groups} {g:?}");
    let [inputs, outputs] = [input.channels / groups, output.channels / groups];
    let depth = g.taps() * inputs;
    let elements = values("input", input.elements());
    let (weight, bias) = (values("weight", depth * output.channels), values("bias", output.channels));
    let expected = both([&elements, &weight, &bias], clamp, |[from, weight, bias], clamp| {
        let mut found = vec![0.0; output.elements()];
        let from = Pixels::dense(&from, g.input, input.channels);
        let to = &mut PixelsMut::dense(&mut found, g.output, output.channels);
        reference::conv(g, groups, from, &weight, Some(&bias), clamp, 0, to);
        found
    });
    let from = input.lay(&elements);
    for level in levels() {
        let mut found = vec![GAP; output.len];
        let mut scratch = vec![f32::NAN; conv_scratch_len(g, input.channels)];
        for group in 0..groups {
            let first = group * outputs;
            let mut packed = vec![0.0; PackedWeights::len(level, depth, outputs)];
            let weight = Pixels::new(&weight[first..], [1, depth], outputs, output.channels);
            let weights = output.pack(level, weight, &bias[first..][..outputs], &mut packed);
            let rows = g.output[0] / 2;
            let mut kept = KeptRows::new(g, input.channels, &mut scratch);
            for [from_row, rows] in [[0, rows], [rows, g.output[0] - rows]] {
                if rows == 0 {
                    continue;
                }
                let mut part = output.part_mut(&mut found, [from_row, rows], [first, outputs]);
                let group = Group { weights, first_input: group * inputs, inputs };
                conv(g, &group, input.pixels(&from), clamp, from_row, &mut part, &mut kept);
            }
        }
        output.check(&found, &expected, depth, &format!("{what} {level}"));
    }
}

/// Rows of another geometry, even of as many floats, or that lie above those already read, would give wrong outputs.
#[test]
fn conv_refuses_rows_of_another_geometry_and_rows_above_earlier_ones() {
    let geometry = |stride| Window::new(3, Padding::Symmetric(1)).stride(stride).over([12, 12]).unwrap();
    let (level, input) = (SimdLevel::Scalar, vec![1.0; 12 * 12 * 3]);
    let mut packed = vec![0.0; PackedWeights::len(level, 27, 4)];
    let weights = PackedWeights::pack(level, Pixels::dense(&[1.0; 27 * 4], [1, 27], 4), None, &mut packed);
    let run = |of_rows: &Conv2dGeometry, first_rows: [usize; 2]| {
        let (g, group) = (geometry(1), Group { weights, first_input: 0, inputs: 3 });
        let mut scratch = vec![0.0; conv_scratch_len(of_rows, 3)];
        let mut kept = KeptRows::new(of_rows, 3, &mut scratch);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for row in first_rows {
                let mut output = vec![0.0; 12 * 4];
                let mut output = PixelsMut::dense(&mut output, [1, 12], 4);
                conv(&g, &group, Pixels::dense(&input, [12, 12], 3), Clamp::none(), row, &mut output, &mut kept);
            }
        }))
    };
    assert_eq!(conv_scratch_len(&geometry(1), 3), conv_scratch_len(&geometry(2), 3));
    assert!(run(&geometry(1), [2, 3]).is_ok());
    assert!(run(&geometry(1), [6, 2]).is_err());
    assert!(run(&geometry(2), [2, 3]).is_err());
}

/// [`check_conv`] of channels-last maps, with channels of one group.
fn check_conv_last(
    g: &Conv2dGeometry,
    groups: usize,
    [inputs, outputs]: [usize; 2],
    gaps: [usize; 2],
    clamp: Clamp<f32>,
) {
    let input = Place::last(g.input, inputs * groups, gaps[0]);
    check_conv(g, groups, input, Place::last(g.output, outputs * groups, gaps[1]), clamp);
}

/// Every padding, stride and dilation over every map, as far as the window fits.
fn geometries(kernel: [usize; 2]) -> impl Iterator<Item = Conv2dGeometry> {
    let options = MAPS.into_iter().flat_map(|map| PADDINGS.map(|padding| (map, padding)));
    options.flat_map(move |(map, padding)| {
        [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)].into_iter().filter_map(move |(stride, dilation)| {
            Window { kernel, stride: [stride; 2], dilation: [dilation; 2], padding }.over(map).ok()
        })
    })
}

#[test]
fn pointwise_equals_reference_at_awkward_sizes() {
    for (at, inputs) in CHANNELS.into_iter().enumerate() {
        for (at2, outputs) in CHANNELS.into_iter().enumerate() {
            for rows in [1, 2, 5, 6, 7, 13, 49] {
                let output = Place::last([1, rows], outputs, at2 % 4);
                let residual = ((rows + at) % 2 == 0).then_some(output);
                check_pointwise(Place::last([1, rows], inputs, at % 3), output, residual, CLAMPS[(at + at2) % 3]);
            }
        }
    }
}

#[test]
fn pointwise_equals_reference_over_several_blocks_of_rows() {
    let check = |rows, [inputs, outputs]: [usize; 2], gap, clamp, is_residual: bool| {
        let output = Place::last([1, rows], outputs, gap);
        check_pointwise(Place::last([1, rows], inputs, gap), output, is_residual.then_some(output), clamp);
    };
    check(1009, [16, 40], 0, CLAMPS[0], true);
    check(997, [96, 24], 16, CLAMPS[1], false);
    // A row that fills a block, one that does not fit, and the flattened features of MobileNetV2.
    for inputs in [6144, 6145, 62_720] {
        check(86, [inputs, 9], 0, CLAMPS[2], false);
    }
}

#[test]
fn pointwise_into_blocks_equals_reference_at_awkward_sizes() {
    for (at, inputs) in BLOCKED_CHANNELS.into_iter().enumerate() {
        for (at2, outputs) in BLOCKED_CHANNELS.into_iter().enumerate() {
            for columns in 1..16 {
                let (turn, size) = (at + at2 + columns, [1 + columns % 3, columns]);
                // Without gaps the rows of some orders are one.
                let gaps = [[0, 0], [1, 1], [0, 2]][turn % 3];
                let output = Place::any(turn % 2, size, outputs, gaps);
                // The residual is now and then of another order than the output, or has other gaps.
                let residual = [None, Some(output), Some(Place::any((turn / 2) % 2, size, outputs, [0, 1]))][at2 % 3];
                check_pointwise(Place::any(at + columns, size, inputs, gaps), output, residual, CLAMPS[turn % 3]);
            }
        }
    }
}

#[test]
fn pointwise_into_blocks_equals_reference_over_several_pieces_of_rows() {
    // Pieces of 84 pixels at most, of one long row and of rows with gaps; one row that is longer.
    for (size, gaps) in [([13, 14], [0, 0]), ([13, 14], [1, 1]), ([2, 97], [1, 0]), ([97, 1], [0, 0])] {
        for orders in [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]] {
            let output = Place::any(orders[1], size, 24, gaps);
            check_pointwise(Place::any(orders[0], size, 2000, gaps), output, Some(output), CLAMPS[0]);
        }
    }
}

#[test]
fn depthwise_equals_reference_at_awkward_sizes() {
    for kernel in [1, 3, 5, 7] {
        for (at, g) in geometries([kernel; 2]).enumerate() {
            for channels in CHANNELS.into_iter().filter(|&c| c >= PackedDepthwise::LEAST_CHANNELS) {
                // The largest only now and then: it repeats the block of 16.
                if channels < 1000 || at % 29 == 0 {
                    check_depthwise(&g, channels, [at % 5, at % 3], CLAMPS[at % 3]);
                }
            }
        }
    }
}

#[test]
fn depthwise_in_place_equals_reference_at_awkward_sizes() {
    for kernel in [[1, 1], [3, 3], [5, 5], [7, 7], [3, 5], [5, 3]] {
        for (at, g) in geometries(kernel).enumerate() {
            for (turn, kept) in [Kept::All, Kept::Ring(1), Kept::Ring(2), Kept::Ring(4)].into_iter().enumerate() {
                // Every number of channels from 1 to 40 is some geometry's.
                let channels = (at * 4 + turn) * 7 % 40 + 1;
                let orders = [at % 2, (at / 2 + turn) % 2];
                check_depthwise_in_place(&g, channels, kept, orders, [turn % 3, at % 3], CLAMPS[at % 3]);
            }
        }
    }
}

#[test]
fn conv_equals_reference_at_awkward_sizes() {
    for kernel in [1, 2, 3, 5] {
        for (at, g) in geometries([kernel; 2]).enumerate() {
            for (groups, channels) in [(1, [3, 32]), (1, [3, 17]), (1, [1, 1]), (2, [7, 8]), (3, [1, 33]), (4, [2, 15])]
            {
                check_conv_last(&g, groups, channels, [at % 3, at % 5], CLAMPS[at % 3]);
            }
            // The widest only now and then: they repeat the panels of the others.
            if at % 29 == 0 {
                for channels in [[16, 96], [96, 16], [1000, 7], [7, 1000]] {
                    check_conv_last(&g, 1, channels, [at % 3, at % 5], CLAMPS[at % 3]);
                }
            }
        }
    }
}

#[test]
fn conv_of_blocks_equals_reference_at_awkward_sizes() {
    for kernel in [[1, 1], [3, 3], [3, 5]] {
        for (at, g) in geometries(kernel).enumerate() {
            for (turn, outputs) in BLOCKED_CHANNELS.into_iter().enumerate() {
                let inputs = BLOCKED_CHANNELS[(at + turn) % 6];
                let gaps = [at % 3, turn % 2];
                let input = Place::any(at + turn, g.input, inputs, gaps);
                check_conv(&g, 1, input, Place::any(turn % 2, g.output, outputs, gaps), CLAMPS[at % 3]);
            }
            // Groups write channels-last.
            let input = Place::any(at % 2, g.input, 24, [1, at % 2]);
            check_conv(&g, 3, input, Place::last(g.output, 9, at % 3), CLAMPS[at % 3]);
        }
    }
}

#[test]
fn conv_equals_reference_on_real_stems() {
    for (padding, outputs) in [(Padding::Same, 32), (Padding::Symmetric(1), 16), (Padding::Symmetric(1), 24)] {
        let g = Window::new(3, padding).stride(2).over([32, 33]).unwrap();
        check_conv_last(&g, 1, [3, outputs], [0, 0], CLAMPS[0]);
        check_conv(&g, 1, Place::last(g.input, 3, 0), Place::rows(g.output, outputs, [1, 1]), CLAMPS[0]);
    }
}

#[test]
fn linear_equals_reference_at_awkward_sizes() {
    for inputs in CHANNELS {
        for outputs in CHANNELS {
            let (input, weight, bias) = (values("x", inputs), values("w", inputs * outputs), values("b", outputs));
            let expected = both([&input, &weight, &bias], CLAMPS[1], |[input, weight, bias], clamp| {
                let mut output = vec![0.0; outputs];
                let to = &mut PixelsMut::dense(&mut output, [1, 1], outputs);
                reference::pointwise(Pixels::dense(&input, [1, 1], inputs), &weight, Some(&bias), None, clamp, to);
                output
            });
            for level in levels() {
                let mut output = vec![GAP; outputs];
                linear(level, &input, &weight, Some(&bias), CLAMPS[1], &mut output);
                let what = format!("linear {inputs}x{outputs} {level}");
                Place::last([1, 1], outputs, 0).check(&output, &expected, inputs, &what);
            }
        }
    }
}

#[test]
fn pool_equals_reference_to_the_last_bit() {
    for kernel in [1, 2, 3, 7] {
        for (at, g) in geometries([kernel; 2]).filter(|g| g.dilation == [1, 1]).enumerate() {
            let channels = CHANNELS[at % CHANNELS.len()];
            let input = values("input", g.input_pixels() * channels);
            let input = Pixels::dense(&input, g.input, channels);
            for pooling in [Pooling::Max, Pooling::Average, Pooling::AveragePadded] {
                let [mut found, mut expected] = [(); 2].map(|()| vec![GAP; g.output_pixels() * channels]);
                pool(&g, pooling, input, &mut PixelsMut::dense(&mut found, g.output, channels));
                reference::pool(&g, pooling, input, &mut PixelsMut::dense(&mut expected, g.output, channels));
                assert_eq!(found, expected, "{pooling:?} {g:?}");
            }
        }
    }
}

#[test]
fn global_pools_of_any_order_equal_the_sum_in_order_to_the_last_bit() {
    for channels in CHANNELS {
        for size in MAPS {
            let elements = values("input", size[0] * size[1] * channels);
            let mut mean = vec![GAP; channels];
            reference::global_average(Pixels::dense(&elements, size, channels), &mut mean);
            let column = |c: usize| elements.iter().skip(c).step_by(channels);
            let greatest: Vec<f32> = (0..channels).map(|c| column(c).fold(f32::MIN, |a, &b| a.max(b))).collect();
            for (order, gaps) in [(0, [0, 0]), (0, [1, 2]), (1, [0, 0]), (1, [2, 1]), (2, [0, 0]), (2, [5, 0])] {
                let place = Place::any(order, size, channels, gaps);
                let data = place.lay(&elements);
                // One more than the channels, which is left alone.
                let mut found = vec![GAP; channels + 1];
                global_average(place.pixels(&data), &mut found);
                assert_eq!(found, [&mean[..], &[GAP]].concat(), "mean of {place:?}");
                global_max(place.pixels(&data), &mut found);
                assert_eq!(found, [&greatest[..], &[GAP]].concat(), "greatest of {place:?}");
            }
        }
    }
}

#[test]
fn clamp_keeps_nan_on_every_simd_level() {
    for level in levels().into_iter().filter(|&level| level != SimdLevel::Scalar) {
        let mut packed = vec![0.0; PackedWeights::len(level, 1, 16)];
        let weights = PackedWeights::pack(level, Pixels::dense(&[1.0; 16], [1, 1], 16), None, &mut packed);
        let mut output = vec![GAP; 16];
        let to = &mut PixelsMut::dense(&mut output, [1, 1], 16);
        pointwise(&weights, Pixels::dense(&[f32::NAN], [1, 1], 1), None, Clamp::relu6(), to);
        assert!(output.iter().all(|value| value.is_nan()), "{level}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn pointwise_equals_reference_at_random_sizes(
        rows in 1_usize..200, inputs in 1_usize..80, outputs in 1_usize..120,
        gaps in [0_usize..20, 0_usize..20], clamp in 0_usize..3, residual: bool,
    ) {
        let output = Place::last([1, rows], outputs, gaps[1]);
        check_pointwise(Place::last([1, rows], inputs, gaps[0]), output, residual.then_some(output), CLAMPS[clamp]);
    }

    #[test]
    fn pointwise_into_blocks_equals_reference_at_random_sizes(
        size in [1_usize..12, 1_usize..20], inputs in 1_usize..80, outputs in 1_usize..120,
        orders in [0_usize..3, 0_usize..2, 0_usize..2], gaps in [[0_usize..3, 0_usize..3], [0_usize..3, 0_usize..3]],
        clamp in 0_usize..3, residual: bool,
    ) {
        let output = Place::any(orders[1], size, outputs, gaps[1]);
        let residual = residual.then_some(Place::any(orders[2], size, outputs, gaps[0]));
        check_pointwise(Place::any(orders[0], size, inputs, gaps[0]), output, residual, CLAMPS[clamp]);
    }

    #[test]
    fn depthwise_equals_reference_at_random_sizes(
        map in [1_usize..20, 1_usize..20], kernel in [1_usize..8, 1_usize..8], stride in [1_usize..4, 1_usize..4],
        dilation in [1_usize..3, 1_usize..3], sides in [0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5],
        channels in PackedDepthwise::LEAST_CHANNELS..70, gaps in [0_usize..20, 0_usize..20], clamp in 0_usize..3,
    ) {
        let [top, bottom, left, right] = sides;
        let window = Window { kernel, stride, dilation, padding: Padding::Explicit { top, bottom, left, right } };
        if let Ok(g) = window.over(map) {
            check_depthwise(&g, channels, gaps, CLAMPS[clamp]);
        }
    }

    #[test]
    fn depthwise_in_place_equals_reference_at_random_sizes(
        map in [1_usize..20, 1_usize..20], kernel in [1_usize..8, 1_usize..8], stride in [1_usize..4, 1_usize..4],
        dilation in [1_usize..3, 1_usize..3], sides in [0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5],
        channels in 1_usize..70, orders in [0_usize..2, 0_usize..2], gaps in [0_usize..3, 0_usize..3],
        lines in 0_usize..6, clamp in 0_usize..3,
    ) {
        let [top, bottom, left, right] = sides;
        let window = Window { kernel, stride, dilation, padding: Padding::Explicit { top, bottom, left, right } };
        if let Ok(g) = window.over(map) {
            let kept = if lines == 0 { Kept::All } else { Kept::Ring(lines) };
            check_depthwise_in_place(&g, channels, kept, orders, gaps, CLAMPS[clamp]);
        }
    }

    #[test]
    fn conv_equals_reference_at_random_sizes(
        map in [1_usize..16, 1_usize..16], kernel in [1_usize..6, 1_usize..6], stride in [1_usize..4, 1_usize..4],
        dilation in [1_usize..3, 1_usize..3], sides in [0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5],
        groups in 1_usize..4, channels in [1_usize..10, 1_usize..40], gaps in [0_usize..9, 0_usize..9],
        clamp in 0_usize..3,
    ) {
        let [top, bottom, left, right] = sides;
        let window = Window { kernel, stride, dilation, padding: Padding::Explicit { top, bottom, left, right } };
        if let Ok(g) = window.over(map) {
            check_conv_last(&g, groups, channels, gaps, CLAMPS[clamp]);
        }
    }

    #[test]
    fn conv_of_blocks_equals_reference_at_random_sizes(
        map in [1_usize..16, 1_usize..16], kernel in [1_usize..6, 1_usize..6], stride in [1_usize..4, 1_usize..4],
        dilation in [1_usize..3, 1_usize..3], sides in [0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5],
        channels in [1_usize..40, 1_usize..60], orders in [0_usize..3, 0_usize..2], gaps in [0_usize..3, 0_usize..3],
        clamp in 0_usize..3,
    ) {
        let [top, bottom, left, right] = sides;
        let window = Window { kernel, stride, dilation, padding: Padding::Explicit { top, bottom, left, right } };
        if let Ok(g) = window.over(map) {
            let input = Place::any(orders[0], g.input, channels[0], gaps);
            check_conv(&g, 1, input, Place::any(orders[1], g.output, channels[1], gaps), CLAMPS[clamp]);
        }
    }
}

/// Whatever a level's layout is, which every machine can pack: weights scaled before or after, and packed from their
/// transpose, come out the same to the last bit.
#[test]
fn packed_weights_are_scaled_and_transposed_exactly() {
    let levels = [SimdLevel::Scalar, SimdLevel::Sse2, SimdLevel::Avx2, SimdLevel::Avx512, SimdLevel::Neon];
    let sizes = [1, 2, 5, 31, 32, 33, 70].into_iter().flat_map(|inputs| CHANNELS.map(|outputs| [inputs, outputs]));
    for (level, [inputs, outputs]) in sizes.flat_map(|size| levels.map(|level| (level, size))) {
        let (weight, bias, factors) =
            (values("weight", inputs * outputs), values("bias", outputs), values("factors", outputs));
        let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, weight)| weight * factors[i % outputs]).collect();
        let what = format!("{level} {inputs} -> {outputs}");
        for blocked in [false, true] {
            let pack = |weight: &[f32], bias: Option<&[f32]>| {
                let weight = Pixels::dense(weight, [1, inputs], outputs);
                let mut packed = vec![GAP; PackedWeights::len(level, inputs, outputs)];
                let _ = if blocked {
                    PackedWeights::pack_blocked(level, weight, bias, &mut packed)
                } else {
                    PackedWeights::pack(level, weight, bias, &mut packed)
                };
                packed
            };
            let mut packed = pack(&weight, Some(&bias));
            if blocked {
                PackedWeights::scale_blocked(level, inputs, &factors, &mut packed);
            } else {
                PackedWeights::scale(level, inputs, &factors, &mut packed);
            }
            assert!(packed == pack(&scaled, Some(&bias)), "{what} {blocked}");
            if !blocked {
                let transposed: Vec<f32> =
                    (0..inputs * outputs).map(|i| weight[i % inputs * outputs + i / inputs]).collect();
                let mut packed = vec![GAP; packed.len()];
                for mut panel in PackedWeights::panels_mut(level, inputs, outputs, &mut packed) {
                    panel.pack_transposed(Pixels::dense(&transposed, [1, outputs], inputs));
                }
                assert!(packed == pack(&weight, None), "{what} transposed");
            }
        }
    }
    for (taps, channels) in [(9, 16), (9, 40), (25, 7), (1, 33)] {
        let (weight, bias, factors) =
            (values("weight", taps * channels), values("bias", channels), values("factors", channels));
        let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, weight)| weight * factors[i % channels]).collect();
        let pack = |weight: &[f32]| {
            let mut packed = vec![GAP; PackedDepthwise::len(taps, channels)];
            let _ = PackedDepthwise::pack_blocked(taps, channels, weight, Some(&bias), &mut packed);
            packed
        };
        let mut packed = pack(&weight);
        PackedDepthwise::scale_blocked(taps, &factors, &mut packed);
        assert!(packed == pack(&scaled), "{taps} taps of {channels}");
    }
}
