//! Every kernel over the real layer shapes of MobileNetV1 and V2, on every SIMD level: `level/op/shape`.
//!
//! Elements per second are multiply-adds per second; `cargo bench --bench kernels -- avx2` picks a level.

mod shapes;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mobilenet::SimdLevel;

fn kernels(c: &mut Criterion) {
    let mut calls: Vec<shapes::Call> = Vec::new();
    for model in ["v1_100", "v2_100", "v2_035"] {
        for call in shapes::calls(model) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    for level in SimdLevel::available() {
        let mut group = c.benchmark_group(level.name());
        for &call in &calls {
            let mut run = call.prepare(level);
            let [input, mut output] = call.lengths().map(|length| vec![0.5; length]);
            group.throughput(Throughput::Elements(call.multiply_adds()));
            group.bench_function(call.to_string().replace(' ', "/"), |bencher| {
                bencher.iter(|| run(&input, &mut output));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(400))
        .sample_size(20);
    targets = kernels
}
criterion_main!(benches);
