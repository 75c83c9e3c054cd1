//! Every kernel over the real layer shapes of MobileNetV1 and V2, and its share of what the machine can do.
//!
//! `cargo bench --bench kernels -- [v1_100|v2_100|v2_035] [LEVEL]`. A kernel's limit is the larger of two times: that
//! of its multiply-adds at the rate of a loop of nothing else, and that of its bytes at the rate at which a set of that
//! size is read. Buffers and weights are warm; in a network they are not always.

mod shapes;

use std::hint::black_box;

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch};
use mobilenet::SimdLevel;
use shapes::median;

/// Turns of the loop of multiply-adds, and sums in each: more than are in flight at once.
const TURNS: usize = 100_000;
const SUMS: usize = 12;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let level = words.iter().find_map(|word| word.parse().ok()).unwrap_or_else(SimdLevel::detect);
    let wanted =
        |model: &&str| words.iter().all(|word| word.parse::<SimdLevel>().is_ok()) || words.iter().any(|w| w == model);
    let peak = peak(level);
    println!("{level}: {:.1} GFLOP/s at most, in a loop of multiply-adds", peak / 1e9);
    for model in ["v1_100", "v2_100", "v2_035"].into_iter().filter(wanted) {
        println!("\n{model:50} {:>9} {:>8} {:>9} {:>7}", "us", "GFLOP/s", "limit us", "share");
        let mut seen: Vec<(shapes::Call, [f64; 2])> = Vec::new();
        let [mut total, mut limits] = [0.0; 2];
        for call in shapes::calls(model) {
            let known = seen.iter().find(|(other, _)| *other == call).map(|(_, times)| *times);
            let [time, limit] = known.unwrap_or_else(|| {
                let times = measure(call, level, peak);
                seen.push((call, times));
                times
            });
            (total, limits) = (total + time, limits + limit);
        }
        println!("{model} kernels {level} sum_ms={:.3} limit_ms={:.3}", total * 1e3, limits * 1e3);
    }
}

/// Times a call and prints it; its time and its limit, in seconds.
fn measure(call: shapes::Call, level: SimdLevel, peak: f64) -> [f64; 2] {
    let time = median(call.prepare(level));
    let flops = 2.0 * call.multiply_adds() as f64;
    let limit = (flops / peak).max(call.bytes() as f64 / read_rate(call.bytes()));
    println!(
        "{:50} {:>9.1} {:>8.1} {:>9.1} {:>6.1}%",
        call.to_string(),
        time * 1e6,
        flops / time / 1e9,
        limit * 1e6,
        100.0 * limit / time
    );
    [time, limit]
}

/// Floating-point operations a second of independent multiply-adds in registers.
fn peak(level: SimdLevel) -> f64 {
    let detected = Level::new();
    let level = match level {
        SimdLevel::Scalar => Level::fallback(),
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Sse2 | SimdLevel::Sse42 => Level::Sse2(detected.as_sse2().expect("x86-64 has SSE2")),
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => Level::Avx2(detected.as_avx2().expect("the level was asked for")),
        _ => detected,
    };
    let lanes = dispatch!(level, simd => lanes(simd));
    let time = median(|| {
        black_box(dispatch!(level, simd => turns(simd)));
    });
    (2 * TURNS * SUMS * lanes) as f64 / time
}

fn lanes<S: Simd>(_: S) -> usize {
    S::f32s::LEN
}

/// Bytes a second at which a warm set of this many bytes is read.
fn read_rate(bytes: usize) -> f64 {
    let data = vec![1.0_f32; bytes / size_of::<f32>()];
    let level = Level::new();
    let time = median(|| {
        black_box(dispatch!(level, simd => sum(simd, black_box(&data))));
    });
    (data.len() * size_of::<f32>()) as f64 / time
}

#[inline(always)]
fn turns<S: Simd>(simd: S) -> f32 {
    simd.vectorize(
        #[inline(always)]
        || {
            let factor = S::f32s::splat(simd, black_box(0.999));
            let mut sums = [S::f32s::splat(simd, black_box(1.0)); SUMS];
            for _ in 0..TURNS {
                for sum in &mut sums {
                    *sum = sum.mul_add(factor, factor);
                }
            }
            sums.iter().map(|sum| sum.as_slice()[0]).sum()
        },
    )
}

#[inline(always)]
fn sum<S: Simd>(simd: S, data: &[f32]) -> f32 {
    simd.vectorize(
        #[inline(always)]
        || {
            let mut sums = [S::f32s::splat(simd, 0.0); 8];
            for chunk in data.chunks_exact(8 * S::f32s::LEN) {
                for (sum, part) in sums.iter_mut().zip(chunk.chunks_exact(S::f32s::LEN)) {
                    *sum += S::f32s::from_slice(simd, part);
                }
            }
            sums.iter().map(|sum| sum.as_slice()[0]).sum()
        },
    )
}
