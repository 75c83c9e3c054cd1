//! Every kernel against its reference: every SIMD level, awkward sizes, every padding.
//!
//! The reference runs in `f64` over the same values; the tolerance of an output is the bound of a sum of `k` products
//! in `f32`, `(k + 2) * eps * sum of |x * w|`, which the reference computes too, from the magnitudes.

mod common;

use common::{levels, values};
use mobilenet::kernels::reference::Pooling;
use mobilenet::kernels::{
    Clamp, Group, PackedDepthwise, PackedWeights, Pixels, PixelsMut, conv, conv_scratch_len, depthwise,
    depthwise_scratch_len, linear, pointwise, pool, reference,
};
use mobilenet::shape::Conv2dGeometry;
use mobilenet::{Padding, SimdLevel, Window};
use proptest::prelude::*;

const CHANNELS: [usize; 10] = [1, 3, 7, 8, 15, 16, 17, 33, 96, 1000];
const MAPS: [[usize; 2]; 5] = [[1, 1], [1, 7], [5, 3], [7, 7], [13, 14]];
const KERAS_V1: Padding = Padding::Explicit { top: 0, bottom: 1, left: 0, right: 1 };
const LOPSIDED: Padding = Padding::Explicit { top: 2, bottom: 0, left: 1, right: 3 };
const PADDINGS: [Padding; 5] = [Padding::Same, Padding::VALID, Padding::Symmetric(1), KERAS_V1, LOPSIDED];
const CLAMPS: [Clamp<f32>; 3] = [
    Clamp { low: 0.0, high: 6.0 },
    Clamp { low: 0.0, high: f32::INFINITY },
    Clamp { low: f32::NEG_INFINITY, high: f32::INFINITY },
];

/// What lies between the channels of one pixel and the next, before and after.
const GAP: f32 = 77.0;

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value.abs())).collect()
}

fn wide(clamp: Clamp<f32>) -> Clamp<f64> {
    Clamp { low: clamp.low.into(), high: clamp.high.into() }
}

/// Values of `count` pixels, `pitch` apart, with the gaps filled.
fn map(name: &str, count: usize, channels: usize, pitch: usize) -> Vec<f32> {
    let mut data = values(name, count * pitch);
    for pixel in data.chunks_mut(pitch) {
        pixel[channels..].fill(GAP);
    }
    data
}

/// A map's pixels without the gaps.
fn dense(data: &[f32], channels: usize, pitch: usize) -> Vec<f32> {
    data.chunks(pitch).flat_map(|pixel| &pixel[..channels]).copied().collect()
}

/// Compares an output with the reference's `[expected, sum of magnitudes]` and checks that the gaps were left alone.
#[track_caller]
fn check(output: &[f32], channels: usize, pitch: usize, [expected, bound]: &[Vec<f64>; 2], terms: usize, what: &str) {
    for (pixel, output) in output.chunks(pitch).enumerate() {
        assert!(output[channels..].iter().all(|&value| value.to_bits() == GAP.to_bits()), "{what}: gap overwritten");
        for (c, &found) in output[..channels].iter().enumerate() {
            let at = pixel * channels + c;
            let tolerance = (terms as f64 + 2.0) * f64::from(f32::EPSILON) * bound[at];
            let difference = (f64::from(found) - expected[at]).abs();
            assert!(difference <= tolerance, "{what}: pixel {pixel} channel {c}: {found} for {}", expected[at]);
        }
    }
}

/// Runs a reference over the values and, without a clamp, over their magnitudes.
fn both<const N: usize>(
    arguments: [&[f32]; N],
    clamp: Clamp<f32>,
    run: impl Fn([Vec<f64>; N], Clamp<f64>) -> Vec<f64>,
) -> [Vec<f64>; 2] {
    [run(arguments.map(widen), wide(clamp)), run(arguments.map(magnitudes), Clamp::none())]
}

fn check_pointwise(rows: usize, inputs: usize, outputs: usize, gaps: [usize; 2], clamp: Clamp<f32>, residual: bool) {
    let what = format!("pointwise {rows}x{inputs}x{outputs} gaps {gaps:?} residual {residual}");
    let pitches = [inputs + gaps[0], outputs + gaps[1]];
    let input = map("input", rows, inputs, pitches[0]);
    let (weight, bias) = (values("weight", inputs * outputs), values("bias", outputs));
    let residual = residual.then(|| map("residual", rows, outputs, pitches[1]));
    let added = residual.as_ref().map_or(vec![0.0; rows * outputs], |r| dense(r, outputs, pitches[1]));
    let packed_input = dense(&input, inputs, pitches[0]);
    let arguments = [&packed_input, &weight, &bias, &added].map(Vec::as_slice);
    let expected = both(arguments, clamp, |[input, weight, bias, added], clamp| {
        let mut output = vec![0.0; rows * outputs];
        let added = Some(Pixels::dense(&added, [1, rows], outputs));
        let to = &mut PixelsMut::dense(&mut output, [1, rows], outputs);
        reference::pointwise(Pixels::dense(&input, [1, rows], inputs), &weight, Some(&bias), added, clamp, to);
        output
    });
    for level in levels() {
        let mut packed = vec![0.0; PackedWeights::len(level, inputs, outputs)];
        let weights =
            PackedWeights::pack(level, Pixels::dense(&weight, [1, inputs], outputs), Some(&bias), &mut packed);
        let mut output = vec![GAP; rows * pitches[1]];
        pointwise(
            &weights,
            Pixels::new(&input, [1, rows], inputs, pitches[0]),
            residual.as_ref().map(|r| Pixels::new(r, [1, rows], outputs, pitches[1])),
            clamp,
            &mut PixelsMut::new(&mut output, [1, rows], outputs, pitches[1]),
        );
        check(&output, outputs, pitches[1], &expected, inputs, &format!("{what} {level}"));
    }
}

fn check_depthwise(g: &Conv2dGeometry, channels: usize, gaps: [usize; 2], clamp: Clamp<f32>) {
    let what = format!("depthwise {channels} gaps {gaps:?} {g:?}");
    let pitches = [channels + gaps[0], channels + gaps[1]];
    let input = map("input", g.input_pixels(), channels, pitches[0]);
    let (weight, bias) = (values("weight", g.taps() * channels), values("bias", channels));
    let expected =
        both([&dense(&input, channels, pitches[0]), &weight, &bias], clamp, |[input, weight, bias], clamp| {
            let mut output = vec![0.0; g.output_pixels() * channels];
            let input = Pixels::dense(&input, g.input, channels);
            let to = &mut PixelsMut::dense(&mut output, g.output, channels);
            reference::depthwise(g, input, &weight, Some(&bias), clamp, 0, to);
            output
        });
    let mut packed = vec![0.0; PackedDepthwise::len(g.taps(), channels)];
    let weights = PackedDepthwise::pack(g.taps(), channels, &weight, Some(&bias), &mut packed);
    for level in levels() {
        let mut output = vec![GAP; g.output_pixels() * pitches[1]];
        let mut scratch = vec![f32::NAN; depthwise_scratch_len(g)];
        // In two parts, as two threads would.
        let rows = g.output[0] / 2;
        let (first, second) = output.split_at_mut(rows * g.output[1] * pitches[1]);
        for (from, rows, part) in [(0, rows, first), (rows, g.output[0] - rows, second)] {
            let input = Pixels::new(&input, g.input, channels, pitches[0]);
            let mut part = PixelsMut::new(part, [rows, g.output[1]], channels, pitches[1]);
            depthwise(level, g, &weights, input, clamp, from, &mut part, &mut scratch);
        }
        check(&output, channels, pitches[1], &expected, g.taps(), &format!("{what} {level}"));
    }
}

fn check_conv(g: &Conv2dGeometry, groups: usize, [inputs, outputs]: [usize; 2], gaps: [usize; 2], clamp: Clamp<f32>) {
    let what = format!("conv {inputs}->{outputs} groups {groups} gaps {gaps:?} {g:?}");
    let (inputs_all, outputs_all) = (inputs * groups, outputs * groups);
    let pitches = [inputs_all + gaps[0], outputs_all + gaps[1]];
    let depth = g.taps() * inputs;
    let input = map("input", g.input_pixels(), inputs_all, pitches[0]);
    let (weight, bias) = (values("weight", depth * outputs_all), values("bias", outputs_all));
    let packed_input = dense(&input, inputs_all, pitches[0]);
    let expected = both([&packed_input, &weight, &bias], clamp, |[input, weight, bias], clamp| {
        let mut output = vec![0.0; g.output_pixels() * outputs_all];
        let input = Pixels::dense(&input, g.input, inputs_all);
        let to = &mut PixelsMut::dense(&mut output, g.output, outputs_all);
        reference::conv(g, groups, input, &weight, Some(&bias), clamp, 0, to);
        output
    });
    for level in levels() {
        let mut output = vec![GAP; g.output_pixels() * pitches[1]];
        let mut scratch = vec![f32::NAN; conv_scratch_len(g, inputs_all)];
        for group in 0..groups {
            let first = group * outputs;
            let mut packed = vec![0.0; PackedWeights::len(level, depth, outputs)];
            let weight = Pixels::new(&weight[first..], [1, depth], outputs, outputs_all);
            let weights = PackedWeights::pack(level, weight, Some(&bias[first..][..outputs]), &mut packed);
            let rows = g.output[0] / 2;
            let (top, bottom) = output.split_at_mut(rows * g.output[1] * pitches[1]);
            for (from, rows, part) in [(0, rows, top), (rows, g.output[0] - rows, bottom)] {
                if rows == 0 {
                    continue;
                }
                let mut part = PixelsMut::new(&mut part[first..], [rows, g.output[1]], outputs, pitches[1]);
                let group = Group { weights, first_input: group * inputs, inputs };
                let input = Pixels::new(&input, g.input, inputs_all, pitches[0]);
                conv(g, &group, input, clamp, from, &mut part, &mut scratch);
            }
        }
        check(&output, outputs_all, pitches[1], &expected, depth, &format!("{what} {level}"));
    }
}

/// Every padding, stride and dilation over every map, as far as the window fits.
fn geometries(kernel: usize) -> impl Iterator<Item = Conv2dGeometry> {
    let options = MAPS.into_iter().flat_map(|map| PADDINGS.map(|padding| (map, padding)));
    options.flat_map(move |(map, padding)| {
        [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]
            .into_iter()
            .filter_map(move |(s, d)| Window::new(kernel, padding).stride(s).dilation(d).over(map).ok())
    })
}

#[test]
fn pointwise_equals_reference_at_awkward_sizes() {
    for (at, inputs) in CHANNELS.into_iter().enumerate() {
        for (at2, outputs) in CHANNELS.into_iter().enumerate() {
            for rows in [1, 2, 5, 6, 7, 13, 49] {
                let (gap, clamp) = ([at % 3, at2 % 4], CLAMPS[(at + at2) % 3]);
                check_pointwise(rows, inputs, outputs, gap, clamp, (rows + at) % 2 == 0);
            }
        }
    }
}

#[test]
fn pointwise_equals_reference_over_several_blocks_of_rows() {
    check_pointwise(1009, 16, 40, [0, 0], CLAMPS[0], true);
    check_pointwise(997, 96, 24, [16, 16], CLAMPS[1], false);
    // A row that fills a block, one that does not fit, and the flattened features of MobileNetV2.
    for inputs in [6144, 6145, 62_720] {
        check_pointwise(86, inputs, 9, [0, 0], CLAMPS[2], false);
    }
}

#[test]
fn depthwise_equals_reference_at_awkward_sizes() {
    for kernel in [1, 3, 5, 7] {
        for (at, g) in geometries(kernel).enumerate() {
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
fn conv_equals_reference_at_awkward_sizes() {
    for kernel in [1, 2, 3, 5] {
        for (at, g) in geometries(kernel).enumerate() {
            for (groups, channels) in [(1, [3, 32]), (1, [3, 17]), (1, [1, 1]), (2, [7, 8]), (3, [1, 33]), (4, [2, 15])]
            {
                check_conv(&g, groups, channels, [at % 3, at % 5], CLAMPS[at % 3]);
            }
            // The widest only now and then: they repeat the panels of the others.
            if at % 29 == 0 {
                for channels in [[16, 96], [96, 16], [1000, 7], [7, 1000]] {
                    check_conv(&g, 1, channels, [at % 3, at % 5], CLAMPS[at % 3]);
                }
            }
        }
    }
}

#[test]
fn conv_equals_reference_on_real_stems() {
    for (padding, outputs) in [(Padding::Same, 32), (Padding::Symmetric(1), 16), (Padding::Symmetric(1), 24)] {
        let g = Window::new(3, padding).stride(2).over([32, 33]).unwrap();
        check_conv(&g, 1, [3, outputs], [0, 0], CLAMPS[0]);
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
                check(&output, outputs, outputs, &expected, inputs, &format!("linear {inputs}x{outputs} {level}"));
            }
        }
    }
}

#[test]
fn pool_equals_reference_to_the_last_bit() {
    for kernel in [1, 2, 3, 7] {
        for (at, g) in geometries(kernel).filter(|g| g.dilation == [1, 1]).enumerate() {
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
        check_pointwise(rows, inputs, outputs, gaps, CLAMPS[clamp], residual);
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
    fn conv_equals_reference_at_random_sizes(
        map in [1_usize..16, 1_usize..16], kernel in [1_usize..6, 1_usize..6], stride in [1_usize..4, 1_usize..4],
        dilation in [1_usize..3, 1_usize..3], sides in [0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5],
        groups in 1_usize..4, channels in [1_usize..10, 1_usize..40], gaps in [0_usize..9, 0_usize..9],
        clamp in 0_usize..3,
    ) {
        let [top, bottom, left, right] = sides;
        let window = Window { kernel, stride, dilation, padding: Padding::Explicit { top, bottom, left, right } };
        if let Ok(g) = window.over(map) {
            check_conv(&g, groups, channels, gaps, CLAMPS[clamp]);
        }
    }
}
