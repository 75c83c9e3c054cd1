//! Whole networks, one image of 224x224, on every SIMD level: compiled, and the layers' own forward.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mobilenet::layers::Initializer;
use mobilenet::{CompileOptions, Layer, MobileNetV1, MobileNetV2, Runtime, SimdLevel, Tensor};

fn models(c: &mut Criterion) {
    let v1 = MobileNetV1::<f32>::builder().initializer(Initializer::Torchvision).build().unwrap();
    let v2 = |alpha| MobileNetV2::<f32>::builder().alpha(alpha).build().unwrap();
    let nets: [(&str, Box<dyn Layer<f32>>); 3] =
        [("v1_100", Box::new(v1)), ("v2_100", Box::new(v2(1.0))), ("v2_035", Box::new(v2(0.35)))];
    let input =
        Tensor::from_fn([1, 224, 224, 3], |[_, h, w, c]| ((h * 3 + w * 7 + c) % 17) as f32 / 8.0 - 1.0).unwrap();
    for level in SimdLevel::available() {
        let runtime = Runtime::new().level(level).unwrap();
        let mut group = c.benchmark_group(format!("model/{level}"));
        for (name, net) in &nets {
            group.throughput(Throughput::Elements(net.multiply_adds(input.shape()).unwrap()));
            let mut engine = net.compile(input.shape(), &CompileOptions::new().level(level)).unwrap();
            let mut output = vec![0.0; engine.output_len()];
            group.bench_function(format!("{name}/engine"), |bencher| {
                bencher.iter(|| engine.run(input.view(), &mut output).unwrap());
            });
            group.bench_function(format!("{name}/layers"), |bencher| {
                bencher.iter(|| net.forward_with(&input, &runtime).unwrap());
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = models
}
criterion_main!(benches);
