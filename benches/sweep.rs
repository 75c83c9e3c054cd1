//! Compiled networks and blocks of many sizes: time per multiply-add, to find sizes that fall off a cliff.
//!
//! `cargo bench --bench sweep -- [LEVEL]`. One thread. In each table neighbours differ by one step of a size; the largest
//! ratio of two neighbours ends the table.

mod shapes;

use mobilenet::layers::{Activation, InvertedResidual, Layer};
use mobilenet::{CompileOptions, MobileNetV1, MobileNetV2, SimdLevel};
use shapes::median;

/// Each at most one and a half times the one before.
const ALPHAS: [f64; 10] = [0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0, 1.4, 2.0];
const SIZES: [usize; 9] = [64, 96, 128, 160, 192, 224, 256, 320, 384];
/// Channels around whole vectors, and some that nothing divides.
const CHANNELS: [usize; 9] = [23, 24, 25, 31, 32, 33, 47, 48, 61];
/// Medians of which the least counts: what else the machine runs only adds.
const ROUNDS: usize = 3;

fn main() {
    let level = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or_else(SimdLevel::detect);
    let v1 = |alpha| MobileNetV1::<f32>::builder().alpha(alpha).build().expect("a network");
    let v2 = |alpha| MobileNetV2::<f32>::builder().alpha(alpha).build().expect("a network");
    table("v1, alpha by size", &ALPHAS, &SIZES, |alpha, size| time(&v1(alpha), [1, size, size, 3], level));
    table("v2, alpha by size", &ALPHAS, &SIZES, |alpha, size| time(&v2(alpha), [1, size, size, 3], level));
    for (name, dilation, activation) in
        [("relu6", 1, Activation::Relu6), ("relu", 1, Activation::Relu), ("dilation 2", 2, Activation::Relu6)]
    {
        table(
            &format!("inverted residual at 28x28, {name}, kernel by channels"),
            &[3, 5, 7],
            &CHANNELS,
            |kernel, n| {
                let block = InvertedResidual::<f32>::builder(n, n).kernel_size(kernel).dilation(dilation);
                time(&block.activation(activation).build().expect("a block"), [1, 28, 28, n], level)
            },
        );
    }
}

/// Picoseconds of one multiply-add of a compiled layer.
fn time(layer: &dyn Layer<f32>, input: [usize; 4], level: SimdLevel) -> f64 {
    let mut engine = layer.compile(input, &CompileOptions::new().level(level)).expect("a layer that compiles");
    let values: Vec<f32> = (0..input.iter().product::<usize>()).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let mut output = vec![0.0; engine.output_len()];
    let rounds = (0..ROUNDS).map(|_| median(|| engine.run_slice(&values, &mut output).expect("its own sizes")));
    let seconds = rounds.fold(f64::INFINITY, f64::min);
    seconds * 1e12 / layer.multiply_adds(input).expect("its input") as f64
}

fn table<R: Copy + std::fmt::Display>(name: &str, rows: &[R], columns: &[usize], measure: impl Fn(R, usize) -> f64) {
    println!("\n{name}, ps");
    print!("{:>6}", "");
    for column in columns {
        print!("{column:>7}");
    }
    let times: Vec<Vec<f64>> = rows
        .iter()
        .map(|&row| {
            print!("\n{row:>6}");
            let print = |time: &f64| print!("{time:>7.1}");
            columns.iter().map(|&column| measure(row, column)).inspect(print).collect()
        })
        .collect();
    let beside = times.iter().flat_map(|row| row.windows(2).map(|pair| (pair[0], pair[1])));
    let below = times.windows(2).flat_map(|pair| pair[0].iter().copied().zip(pair[1].iter().copied()));
    let most = beside.chain(below).map(|(one, other)| (one / other).max(other / one)).fold(1.0, f64::max);
    println!("\nlargest ratio of neighbours: {most:.2}");
}
