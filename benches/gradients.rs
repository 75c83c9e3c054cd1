//! Gradient kernels over the real layer shapes of MobileNetV1 and V2, against the forward kernel of the same layer.
//!
//! `cargo bench --bench gradients -- [v1_100|v2_100|v2_035] [LEVEL]`. All do the same multiply-adds, so the ratio of
//! their times is that of their rates. Kernels alone, with buffers and weights warm, one image; what a training step
//! does around them (normalisations, masks, copies) is in the example `train_step`.

mod shapes;

use mobilenet::kernels::{
    BLOCK, Clamp, PackedDepthwise, PackedWeights, PaddedRows, Pixels, PixelsMut, Plane, Strides, depthwise_in_place,
    depthwise_input_gradient, depthwise_weight_gradient, gradient_border, outer, pointwise,
};
use mobilenet::{Padding, SimdLevel, Tensor, Window};
use shapes::{Call, median};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let level = words.iter().find_map(|word| word.parse().ok()).unwrap_or_else(SimdLevel::detect);
    let wanted =
        |model: &&str| words.iter().all(|word| word.parse::<SimdLevel>().is_ok()) || words.iter().any(|w| w == model);
    for model in ["v1_100", "v2_100", "v2_035"].into_iter().filter(wanted) {
        println!(
            "\n{:50} {:>9} {:>9} {:>9}   rate / forward",
            format!("{model} {level}"),
            "forward",
            "d_input",
            "d_weight"
        );
        let mut seen: Vec<(Call, [f64; 3])> = Vec::new();
        let mut total = [0.0; 3];
        for call in shapes::calls(model) {
            let known = seen.iter().find(|(other, _)| *other == call).map(|(_, times)| *times);
            let Some(times) = known.or_else(|| measure(call, level)) else { continue };
            if known.is_none() {
                seen.push((call, times));
                print(&call.to_string(), call.multiply_adds(), times);
            }
            total.iter_mut().zip(times).for_each(|(total, time)| *total += time);
        }
        let all = shapes::calls(model).into_iter().filter(|call| seen.iter().any(|(other, _)| other == call));
        print(&format!("{model} all"), all.map(Call::multiply_adds).sum(), total);
    }
}

/// GFLOP/s of each kernel, and what the gradients reach of the forward's.
fn print(name: &str, multiply_adds: u64, times: [f64; 3]) {
    let [forward, d_input, d_weight] = times.map(|time| 2.0 * multiply_adds as f64 / time / 1e9);
    let shares = [d_input / forward, d_weight / forward];
    println!("{name:50} {forward:>9.1} {d_input:>9.1} {d_weight:>9.1}   {:.2} {:.2}", shares[0], shares[1]);
}

/// Seconds of forward, gradient by the input, and gradient by the weight; `None` if the call has no kernel of its own.
fn measure(call: Call, level: SimdLevel) -> Option<[f64; 3]> {
    match call {
        Call::Depthwise { size, channels, kernel, stride } => Some(depthwise(level, [size, channels, kernel, stride])),
        Call::Pointwise { size, inputs, outputs, .. } => Some(products(level, [size * size, inputs, outputs])),
        _ => None,
    }
}

/// In a tensor: on cache lines, as all memory of training.
fn values(count: usize) -> Tensor<f32> {
    Tensor::from_fn([1, 1, 1, count], |[.., i]| (i * 37 % 251) as f32 / 125.0 - 1.0).unwrap()
}

fn products(level: SimdLevel, [pixels, inputs, outputs]: [usize; 3]) -> [f64; 3] {
    let pitch = outputs.next_multiple_of(BLOCK);
    let (input, gradient, weight) = (values(pixels * inputs), values(pixels * pitch), values(inputs * outputs));
    let product = |inputs: usize, outputs: usize, from: Pixels<'_, f32>| {
        let mut packed = values(PackedWeights::len(level, inputs, outputs));
        let weight = Pixels::dense(weight.as_slice(), [1, inputs], outputs);
        let weights = PackedWeights::pack(level, weight, None, packed.as_mut_slice());
        let mut output = values(pixels * outputs);
        median(|| {
            let mut output = PixelsMut::dense(output.as_mut_slice(), [1, pixels], outputs);
            pointwise(&weights, from, None, Clamp::none(), &mut output);
        })
    };
    let input = Pixels::dense(input.as_slice(), [1, pixels], inputs);
    let gradient = Pixels::new(gradient.as_slice(), [1, pixels], outputs, pitch);
    let mut sums = values(inputs * pitch);
    let d_weight = median(|| outer(level, input, gradient, sums.as_mut_slice()));
    [product(inputs, outputs, input), product(outputs, inputs, gradient), d_weight]
}

fn depthwise(level: SimdLevel, [size, channels, kernel, stride]: [usize; 4]) -> [f64; 3] {
    let g = Window::new(kernel, Padding::Symmetric(kernel / 2)).stride(stride).over([size; 2]).unwrap();
    let (width, blocks) = (g.padded_width(), channels.div_ceil(BLOCK));
    let [left, right] = gradient_border(&g);
    let gradient_width = left + g.output[1] + right;
    // Rows above and below for the padding.
    let blocked = |count: usize| values(count * BLOCK);
    let (input, weight) = (blocked((size + kernel) * width), blocked(g.taps()));
    let d_output = blocked(g.output[0] * gradient_width);
    let (mut output, mut d_input) = (blocked(g.output_pixels()), blocked(g.input_pixels()));
    let mut packed = values(PackedDepthwise::len(g.taps(), BLOCK));
    let weights = PackedDepthwise::pack_blocked(g.taps(), BLOCK, weight.as_slice(), None, packed.as_mut_slice());
    let strides = |width| Strides { row: width * BLOCK, pixel: BLOCK, block: BLOCK };
    let forward = median(|| {
        let rows = PaddedRows { data: input.as_slice(), places: size, strides: strides(width) };
        let mut output = PixelsMut::strided(output.as_mut_slice(), g.output, BLOCK, strides(g.output[1]));
        depthwise_in_place(level, &g, &weights, rows, Clamp::none(), 0, &mut output);
    });
    let d_output = Plane { data: d_output.as_slice().as_chunks().0, width: gradient_width, before: [0, left] };
    let from = Plane { data: input.as_slice().as_chunks().0, width, before: g.before };
    let mut sums = blocked(g.taps());
    let (weight, d_input) = (weight.as_slice().as_chunks().0, d_input.as_mut_slice().as_chunks_mut().0);
    let by_input = median(|| depthwise_input_gradient(level, &g, d_output, weight, d_input));
    let sums = sums.as_mut_slice().as_chunks_mut().0;
    let by_weight = median(|| depthwise_weight_gradient(level, &g, from, d_output, sums));
    // Each block is computed by itself, as in a training step.
    [forward, by_input, by_weight].map(|time| time * blocks as f64)
}
