//! Gradients in `f32` on every SIMD level against `f64`, which runs plain loops and matrixmultiply, but for the passes
//! over pixels, which have plain loops here; and that neither gradients nor a whole training step depend on the number
//! of threads.

use mobilenet::kernels::{
    BLOCK, Clamp, Pixels, Plane, columns, depthwise_input_gradient, gradient_border, outer, reference,
};
use mobilenet::layers::{Gradient, Layer, Signal, Tape};
use mobilenet::ops::{Affine, Backward, GradientSums, Lazy, LazyGradient, Moments};
use mobilenet::{Element, MobileNetV2, Padding, Runtime, SimdLevel, Tensor, Window, ops};

/// Values in -2 to 2 without a pattern, each `f32` and `f64` alike.
fn values<T: Element>(count: usize, seed: u32) -> Vec<T> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        T::from_f64(f64::from((state >> 16) as u16) / 16384.0 - 2.0)
    };
    (0..count).map(next).collect()
}

fn tensor<T: Element>(shape: [usize; 4], seed: u32) -> Tensor<T> {
    Tensor::from_shape_vec(shape, values(shape.iter().product(), seed)).unwrap()
}

fn affine<T: Element>(channels: usize) -> Affine<T> {
    let clamp = Clamp { low: T::from_f64(-1.5), high: T::from_f64(1.25) };
    Affine { scale: values(channels, 1), shift: values(channels, 2), center: values(channels, 3), clamp }
}

/// What a convolution gives in training.
struct Outcome<T> {
    output: Vec<T>,
    moments: Moments,
    d_weight: Vec<T>,
    d_bias: Vec<T>,
    d_input: Vec<T>,
    sums: Option<GradientSums>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pointwise,
    Depthwise,
    Dense { groups: usize },
}

/// A convolution of an input of this shape to `outputs` channels, forward and backward, lazily on both sides; its
/// maps and weight are times a factor.
fn run<T: Element>(
    kind: Kind,
    shape: [usize; 4],
    outputs: usize,
    window: &Window,
    is_lazy: bool,
    runtime: &Runtime,
    factor: T,
) -> Outcome<T> {
    let [n, h, w, inputs] = shape;
    let geometry = window.over([h, w]).unwrap();
    let [kernel_h, kernel_w] = window.kernel;
    let weight_shape = match kind {
        Kind::Pointwise => [1, 1, inputs, outputs],
        Kind::Depthwise => [kernel_h, kernel_w, inputs, outputs / inputs],
        Kind::Dense { groups } => [kernel_h, kernel_w, inputs / groups, outputs],
    };
    let times = |mut map: Tensor<T>| {
        map.as_mut_slice().iter_mut().for_each(|value| *value *= factor);
        map
    };
    let (map, affine) = (times(tensor(shape, 4)), affine::<T>(inputs));
    let input = Lazy { map: &map, affine: is_lazy.then_some(&affine) };
    let weight = times(tensor(weight_shape, 5)).into_vec();
    let bias: Vec<T> = values(outputs, 6);
    let mut output = Tensor::zeros([n, geometry.output[0], geometry.output[1], outputs]).unwrap();
    output.as_mut_slice().fill(T::nan());
    let mut moments = Moments::new(outputs);
    match kind {
        Kind::Pointwise => {
            ops::pointwise_forward(input, &weight, Some(&bias), &mut output, Some(&mut moments), runtime).unwrap();
        }
        Kind::Depthwise => {
            let moments = Some(&mut moments);
            ops::depthwise_forward(&geometry, input, &weight, Some(&bias), &mut output, moments, runtime).unwrap();
        }
        Kind::Dense { .. } => {
            let weight = mobilenet::ndarray::ArrayView4::from_shape(weight_shape, &weight).unwrap();
            let moments = Some(&mut moments);
            ops::conv_forward(window, input, weight, Some(&bias), &mut output, moments, runtime).unwrap();
        }
    }
    let [d_output, before] = [7, 8].map(|seed| times(tensor(output.shape(), seed)));
    let constants: [Vec<T>; 3] = [9, 10, 11].map(|seed| values(outputs, seed));
    let constants = constants.each_ref().map(Vec::as_slice);
    let d_output = LazyGradient { map: &d_output, through: is_lazy.then_some((&before, constants)) };
    let (mut d_weight, mut d_bias) = (values(weight.len(), 12), values(outputs, 13));
    let mut d_input = tensor(shape, 14);
    let work = Backward {
        input,
        d_output,
        weight: &weight,
        d_weight: Some(&mut d_weight),
        d_bias: Some(&mut d_bias),
        d_input: Some(&mut d_input),
    };
    let sums = match kind {
        Kind::Pointwise => ops::pointwise_backward(work, runtime).unwrap(),
        Kind::Depthwise => ops::depthwise_backward(&geometry, work, runtime).unwrap(),
        Kind::Dense { groups } => ops::conv_backward(&geometry, groups, work, runtime).unwrap(),
    };
    Outcome { output: output.into_vec(), moments, d_weight, d_bias, d_input: d_input.into_vec(), sums }
}

/// Relative to the largest value of an array: sums of a few hundred products of values up to 4.
const TOLERANCE: f64 = 2e-5;

fn assert_alike<T: Element>(what: &str, actual: &[T], expected: &[f64]) {
    let most = expected.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (at, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (Element::to_f64(*actual) - expected).abs();
        assert!(difference <= TOLERANCE * most, "{what}[{at}]: {actual}, expected {expected} (largest {most})");
    }
}

#[track_caller]
fn check(kind: Kind, shape: [usize; 4], outputs: usize, window: &Window) {
    for is_lazy in [false, true] {
        let expected = run::<f64>(kind, shape, outputs, window, is_lazy, &Runtime::new(), 1.0);
        for level in SimdLevel::available() {
            let runtime = Runtime::new().level(level).unwrap();
            // What it leaves in the runtime's memory must not be read.
            let _ = run::<f32>(kind, shape, outputs, window, is_lazy, &runtime, f32::NAN);
            let actual = run::<f32>(kind, shape, outputs, window, is_lazy, &runtime, 1.0);
            let name = |part| format!("{kind:?} {shape:?} -> {outputs} {window:?} lazy {is_lazy} {level}: {part}");
            assert_alike(&name("output"), &actual.output, &expected.output);
            assert_eq!(actual.moments.count, expected.moments.count);
            assert_alike(&name("mean"), &actual.moments.mean, &expected.moments.mean);
            assert_alike(&name("squares"), &actual.moments.squares, &expected.moments.squares);
            assert_alike(&name("d_weight"), &actual.d_weight, &expected.d_weight);
            assert_alike(&name("d_bias"), &actual.d_bias, &expected.d_bias);
            assert_alike(&name("d_input"), &actual.d_input, &expected.d_input);
            assert_eq!(actual.sums.is_some(), is_lazy);
            if let (Some(actual), Some(expected)) = (&actual.sums, &expected.sums) {
                assert_alike(&name("sum"), &actual.gradient, &expected.gradient);
                assert_alike(&name("spread"), &actual.spread, &expected.spread);
            }
        }
    }
}

#[test]
fn pointwise_gradients_match_at_awkward_sizes() {
    let window = Window::new(1, Padding::VALID);
    for (inputs, outputs) in [(1, 1), (3, 8), (7, 17), (16, 24), (17, 3), (33, 40), (65, 129)] {
        check(Kind::Pointwise, [2, 5, 3, inputs], outputs, &window);
    }
    check(Kind::Pointwise, [3, 13, 11, 24], 96, &window);
    check(Kind::Pointwise, [1, 1, 1, 20], 5, &window);
    check(Kind::Pointwise, [3, 1, 1, 700], 100, &window);
}

#[test]
fn gradient_of_a_large_weight_sums_outer_products_on_any_number_of_threads() {
    let dense = |groups| Kind::Dense { groups };
    // Too few pixels to share and enough; outputs of whole blocks and not.
    for (kind, groups, shape, outputs) in [
        (Kind::Pointwise, 1, [3, 1, 1, 700], 100),
        (Kind::Pointwise, 1, [3, 1, 1, 600], 112),
        (Kind::Pointwise, 1, [5, 8, 7, 700], 100),
        (Kind::Pointwise, 1, [5, 8, 7, 600], 112),
        (dense(1), 1, [5, 3, 2, 700], 100),
        (dense(2), 2, [5, 3, 2, 800], 200),
    ] {
        let (inputs, name) = (shape[3], format!("{kind:?} {shape:?} -> {outputs}"));
        let [input, d_output] = [(inputs, 4), (outputs, 7)]
            .map(|(channels, seed)| values::<f64>(shape[..3].iter().product::<usize>() * channels, seed));
        let mut expected = values::<f64>(inputs / groups * outputs, 12);
        for (input, d_output) in input.chunks_exact(inputs).zip(d_output.chunks_exact(outputs)) {
            for (at, sum) in expected.iter_mut().enumerate() {
                let (row, output) = (at / outputs, at % outputs);
                let group = output / (outputs / groups);
                *sum += input[group * (inputs / groups) + row] * d_output[output];
            }
        }
        let gradient = |threads| {
            let runtime = Runtime::new().threads(threads).unwrap();
            run::<f32>(kind, shape, outputs, &Window::new(1, Padding::VALID), false, &runtime, 1.0).d_weight
        };
        let one = gradient(1);
        assert_alike(&name, &one, &expected);
        assert!(one == gradient(2) && one == gradient(3), "{name}");
    }
}

#[test]
fn depthwise_gradients_match_at_awkward_sizes() {
    for channels in [1, 8, 15, 16, 17, 24, 40, 65, 257] {
        for (kernel, stride, dilation) in [(3, 1, 1), (3, 2, 1), (5, 2, 1), (1, 1, 1), (2, 3, 1), (3, 1, 2), (3, 2, 3)]
        {
            for padding in [Padding::Same, Padding::Symmetric(1), Padding::Symmetric(3)] {
                let window = Window::new(kernel, padding).stride(stride).dilation(dilation);
                check(Kind::Depthwise, [2, 9, 10, channels], channels, &window);
            }
        }
    }
    // Maps of more than one strip.
    for (kernel, stride, dilation) in [(3, 1, 1), (3, 2, 1), (5, 2, 1), (2, 3, 1), (3, 2, 3), (7, 1, 2)] {
        for padding in [Padding::Same, Padding::Symmetric(2), Padding::VALID] {
            let window = Window::new(kernel, padding).stride(stride).dilation(dilation);
            check(Kind::Depthwise, [2, 45, 103, 20], 20, &window);
        }
    }
    // Of more than one strip and more than one group of channels.
    check(Kind::Depthwise, [1, 11, 34, 1050], 1050, &Window::new(3, Padding::Same));
    check(Kind::Depthwise, [1, 11, 34, 1050], 1050, &Window::new(3, Padding::Symmetric(1)).stride(2));
    // Squares of pixels: every tile, rows of outputs that are not there, a row or a column left over.
    for before in 0..3 {
        let padding = Padding::Explicit { top: before, bottom: 2 - before, left: before, right: 2 - before };
        for [h, w] in [[1, 1], [1, 4], [2, 1], [2, 2], [3, 3], [4, 5], [6, 6], [5, 8], [8, 12], [10, 14]] {
            check(Kind::Depthwise, [1, h, w, 17], 17, &Window::new(3, padding).stride(2));
        }
    }
    check(Kind::Depthwise, [1, 8, 12, 17], 17, &Window::new(3, Padding::VALID).stride(2));
    for stride in [[1, 2], [2, 1]] {
        check(Kind::Depthwise, [1, 8, 12, 17], 17, &Window { stride, ..Window::new(3, Padding::Symmetric(1)) });
    }
    let window = Window::new(3, Padding::Same);
    check(Kind::Depthwise, [1, 1, 1, 32], 32, &window);
    check(Kind::Depthwise, [1, 2, 31, 16], 16, &window);
    check(Kind::Depthwise, [2, 5, 6, 3], 6, &window);
    check(Kind::Depthwise, [1, 20, 19, 16], 16, &Window::new(17, Padding::Same));
}

#[test]
fn a_plane_need_not_have_rows_above_its_outputs() {
    let geometry = Window::new(3, Padding::VALID).stride(2).over([7, 8]).unwrap();
    let [left, right] = gradient_border(&geometry);
    let [height, columns] = geometry.output;
    let width = left + columns + right;
    let mut data = vec![[0.0; BLOCK]; (1 + height) * width];
    for (y, row) in data.chunks_exact_mut(width).enumerate().skip(1) {
        for (x, pixel) in row[left..][..columns].iter_mut().enumerate() {
            *pixel = std::array::from_fn(|c| (y * 100 + x * 10 + c) as f32);
        }
    }
    let weight: Vec<[f32; BLOCK]> = (0..9).map(|tap| [1.0 + tap as f32; BLOCK]).collect();
    for level in SimdLevel::available() {
        let gradient = |data: &[[f32; BLOCK]], above: usize| {
            let mut d_input = vec![[f32::NAN; BLOCK]; geometry.input_pixels()];
            let d_output = Plane { data, width, before: [above, left] };
            depthwise_input_gradient(level, &geometry, d_output, &weight, &mut d_input);
            d_input
        };
        assert_eq!(gradient(&data, 1), gradient(&data[width..], 0), "{level}");
    }
}

#[test]
fn dense_gradients_match_at_awkward_sizes() {
    check(Kind::Dense { groups: 1 }, [2, 9, 7, 3], 32, &Window::new(3, Padding::Same).stride(2));
    check(Kind::Dense { groups: 1 }, [1, 5, 6, 17], 9, &Window::new(3, Padding::Symmetric(1)).dilation(2));
    check(Kind::Dense { groups: 2 }, [2, 6, 5, 6], 10, &Window::new(2, Padding::VALID));
    check(Kind::Dense { groups: 1 }, [2, 5, 5, 4], 4, &Window::new(1, Padding::Symmetric(1)).stride(3));
}

fn check_passes<T: Element>(level: SimdLevel, channels: usize, pixels: usize) {
    let what = format!("{level} {} {channels} {pixels}", T::NAME);
    let exact = |values: &[T]| values.iter().map(|&value| Element::to_f64(value)).collect::<Vec<f64>>();
    let (affine, len) = (affine::<T>(channels), pixels * channels);
    let (input, gradient) = (values::<T>(len, 4), values::<T>(len, 5));
    let (x, g) = (exact(&input), exact(&gradient));
    let [scale, shift, center] = [&affine.scale, &affine.shift, &affine.center].map(|values| exact(values));
    let [low, high] = [affine.clamp.low, affine.clamp.high].map(Element::to_f64);
    let pass = columns::Affine { scale: &affine.scale, shift: &affine.shift, clamp: affine.clamp };
    let normalised = |i: usize| x[i] * scale[i % channels] + shift[i % channels];
    let sum = |of: &dyn Fn(usize) -> f64, c: usize| (c..len).step_by(channels).map(of).sum::<f64>();

    let mut output = vec![T::zero(); len];
    columns::apply(level, pass, &input, &mut output);
    let expected: Vec<f64> = (0..len).map(|i| normalised(i).clamp(low, high)).collect();
    assert_alike(&format!("apply {what}"), &output, &expected);

    for pitch in [channels, channels + 5] {
        let mut output = vec![T::one(); pixels * pitch];
        columns::combine(level, [&affine.scale, &affine.shift, &affine.center], &gradient, &input, pitch, &mut output);
        let combined = |i: usize| scale[i % channels] * g[i] + shift[i % channels] * x[i] + center[i % channels];
        for (p, output) in output.chunks_exact(pitch).enumerate() {
            let expected: Vec<f64> = (p * channels..(p + 1) * channels).map(combined).collect();
            assert_alike(&format!("combine {what} {pitch}"), &output[..channels], &expected);
            assert!(output[channels..].iter().all(|&between| between == T::one()), "written between pixels: {what}");
        }
        let mut sums = vec![T::one(); channels];
        columns::sum(level, &output, pitch, &mut sums);
        let expected: Vec<f64> = (0..channels).map(|c| sum(&combined, c)).collect();
        assert_alike(&format!("sum {what} {pitch}"), &sums, &expected);
    }

    let passed = |i: usize| if normalised(i) > low && normalised(i) < high { g[i] } else { 0.0 };
    let (mut masked, mut sums) = (gradient.clone(), [vec![T::one(); channels], vec![T::one(); channels]]);
    let [of_gradient, of_spread] = &mut sums;
    columns::mask(level, pass, &affine.center, &input, &mut masked, [of_gradient, of_spread]);
    assert_eq!(exact(&masked), (0..len).map(passed).collect::<Vec<_>>(), "mask {what}");
    let expected: Vec<f64> = (0..channels).map(|c| sum(&passed, c)).collect();
    assert_alike(&format!("sum of the gradient {what}"), &sums[0], &expected);
    let spread = |i: usize| passed(i) * (x[i] - center[i % channels]);
    let expected: Vec<f64> = (0..channels).map(|c| sum(&spread, c)).collect();
    assert_alike(&format!("spread {what}"), &sums[1], &expected);
}

/// Narrow pixels and wide ones, whole vectors and parts of one, more rows than are taken at a time.
#[test]
fn passes_over_pixels_match_plain_loops_at_awkward_sizes() {
    for level in SimdLevel::available() {
        for channels in [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 64, 65, 79, 96, 129, 1030] {
            for pixels in [1, 2, 3, 17, 150] {
                check_passes::<f32>(level, channels, pixels);
                check_passes::<f64>(level, channels, pixels);
            }
        }
    }
}

/// The spread is far below the mean, or the first pixel far from all others.
#[test]
fn moments_lose_nothing_to_a_large_mean() {
    for (channels, pixels) in [(1, 7), (16, 50), (40, 333), (65, 200)] {
        for (offset, first) in [(1e4, 0.0), (0.0, 100.0)] {
            let spread = values::<f32>(pixels * channels, 3);
            let at = |index: usize| offset + if index < channels { first } else { 0.0 } + spread[index];
            let map: Vec<f32> = (0..spread.len()).map(at).collect();
            for level in SimdLevel::available() {
                let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
                columns::moments(level, &map, &mut mean, &mut squares);
                for c in 0..channels {
                    let of_channel: Vec<_> = map[c..].iter().step_by(channels).copied().map(f64::from).collect();
                    let expected = of_channel.iter().sum::<f64>() / pixels as f64;
                    let sum = |power| of_channel.iter().map(|x| (x - of_channel[0]).abs().powi(power)).sum::<f64>();
                    // Each addition may round by as much as the sum of all.
                    let bound = |sum: f64| f64::from(f32::EPSILON) * pixels as f64 * sum;
                    let error = (f64::from(mean[c]) - expected).abs();
                    assert!(error <= bound(sum(1)) / pixels as f64 + f64::from(f32::EPSILON) * expected.abs());
                    let expected = of_channel.iter().map(|x| (x - expected).powi(2)).sum::<f64>();
                    assert!((f64::from(squares[c]) - expected).abs() <= 2.0 * bound(sum(2)));
                }
            }
        }
    }
}

#[test]
fn outer_products_match_the_reference() {
    for (inputs, outputs, pixels) in [(1, 1, 1), (7, 16, 5), (15, 33, 9), (29, 64, 40), (64, 50, 3), (250, 100, 64)] {
        let pitch = usize::next_multiple_of(outputs, 16);
        let (input, gradient) = (values::<f32>(pixels * inputs, 1), values::<f32>(pixels * pitch, 2));
        let from = Pixels::dense(&input, [1, pixels], inputs);
        let by = Pixels::new(&gradient, [1, pixels], outputs, pitch);
        let mut expected = vec![1.0; inputs * outputs];
        reference::outer(from, by, &mut expected);
        for level in SimdLevel::available() {
            let mut sums = vec![1.0; inputs * pitch];
            outer(level, from, by, &mut sums);
            for (sums, expected) in sums.chunks_exact(pitch).zip(expected.chunks_exact(outputs)) {
                let expected: Vec<_> = expected.iter().copied().map(f64::from).collect();
                assert_alike(&format!("{level} {inputs} {outputs} {pixels}"), &sums[..outputs], &expected);
            }
        }
    }
}

#[test]
fn training_step_does_not_depend_on_threads() {
    let step = |threads| {
        let mut net = MobileNetV2::<f32>::builder().alpha(0.35).classes(7).dropout(0.2).build().unwrap();
        let mut tape = Tape::new(Runtime::new().threads(threads).unwrap());
        for step in 0..2 {
            tape.start(step);
            let images = Signal::new(tensor([5, 49, 47, 3], 15));
            let logits = net.forward_train(images, &mut tape).unwrap().into_tensor(&mut tape).unwrap();
            net.backward(Gradient::new(logits), &mut tape).unwrap();
        }
        let mut all = Vec::new();
        net.visit("", &mut |name, parameter| {
            all.push((name, parameter.as_slice().to_vec(), parameter.gradient().map(<[f32]>::to_vec)));
        });
        all
    };
    let one = step(1);
    assert!(one.iter().any(|(_, _, gradient)| gradient.as_ref().is_some_and(|g| g.iter().any(|&g| g != 0.0))));
    for threads in [2, 3] {
        for (one, other) in one.iter().zip(step(threads)) {
            assert!(*one == other, "{} differs on {threads} threads", one.0);
        }
    }
}
