//! The kernels' time summed over the real layers of a network, weights packed: what a network costs without the work
//! around its kernels.
//!
//! `cargo bench --bench layer_sum -- [v1_100|v2_100|v2_035] [LEVEL]` runs the calls in the order of the network, each
//! on what the one before wrote, between two buffers, and prints `median_ms=` of the sum and every call's share.

mod shapes;

use std::time::Instant;

use mobilenet::SimdLevel;

/// Passes over the network; the first ten warm up.
const PASSES: usize = 70;
const WARM_UP: usize = 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let level = words.iter().find_map(|word| word.parse().ok()).unwrap_or_else(SimdLevel::detect);
    let models: Vec<&str> =
        ["v1_100", "v2_100", "v2_035"].into_iter().filter(|m| words.iter().any(|w| w == m)).collect();
    for model in if models.is_empty() { vec!["v1_100", "v2_100", "v2_035"] } else { models } {
        let calls = shapes::calls(model);
        let mut runs: Vec<_> = calls.iter().map(|call| call.prepare(level)).collect();
        let mut times = vec![Vec::new(); calls.len()];
        let largest = calls.iter().flat_map(|call| call.lengths()).max().unwrap_or(0);
        let [mut from, mut to] = [(); 2].map(|()| vec![0.5; largest]);
        let mut sums = Vec::new();
        for pass in 0..PASSES {
            let begin = Instant::now();
            for ((call, run), times) in calls.iter().zip(&mut runs).zip(&mut times) {
                let [input, output] = call.lengths();
                let begin = Instant::now();
                run(&from[..input], &mut to[..output]);
                if pass >= WARM_UP {
                    times.push(begin.elapsed().as_secs_f64());
                }
                std::mem::swap(&mut from, &mut to);
            }
            if pass >= WARM_UP {
                sums.push(begin.elapsed().as_secs_f64());
            }
        }
        let total = median(&mut sums);
        for (call, times) in calls.iter().zip(&mut times) {
            let time = median(times);
            let rate = call.multiply_adds() as f64 / time / 1e9;
            println!(
                "{:45} {:8.1} us {:6.1} GMAC/s {:5.1} %",
                call.to_string(),
                time * 1e6,
                rate,
                100.0 * time / total
            );
        }
        println!("{model} kernels {level} median_ms={:.3} min_ms={:.3}", total * 1e3, sums[0] * 1e3);
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
