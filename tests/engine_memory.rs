//! What runs of a compiled network allocate: nothing. Counted over all allocations of the process.

#[path = "suite/common.rs"]
mod common;

use std::alloc::System;

use common::values;
use mobilenet::engine::{CompileOptions, Engine};
use mobilenet::layers::{
    Conv2d, ConvBnRelu, DepthwiseConv2d, Flatten, InvertedResidual, Layer, Linear, Relu6, Sequential, Softmax,
};
use mobilenet::{MobileNetV1, MobileNetV2, Runtime, SimdLevel, Tensor};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZE: [usize; 3] = [40, 33, 3];
/// Two at once on two threads, and one alone.
const BATCH: usize = 3;

/// Both families, and 5x5 depthwise, grouped and repeated convolutions, clamps and a softmax, none of which is fused
/// away.
fn networks() -> [(&'static str, Box<dyn Layer<f32>>); 3] {
    let custom = Sequential::new()
        .push(ConvBnRelu::builder(3, 20).kernel_size(3).build().unwrap())
        .push(DepthwiseConv2d::builder(20).kernel_size(5).channel_multiplier(2).build().unwrap())
        .push(Relu6)
        .push(Relu6)
        .push(InvertedResidual::builder(40, 40).kernel_size(5).expand_ratio(2).build().unwrap())
        .push(Conv2d::builder(40, 24).kernel_size(3).stride(2).groups(4).build().unwrap())
        .push(InvertedResidual::builder(24, 24).kernel_size(5).build().unwrap())
        .push(Softmax)
        .push(ConvBnRelu::builder(24, 8).kernel_size(5).stride(4).build().unwrap())
        .push(Flatten)
        .push(Linear::builder(200, 10).build().unwrap())
        .push(Softmax);
    [
        ("v1", Box::new(MobileNetV1::builder().alpha(0.25).classes(10).build().unwrap())),
        ("v2", Box::new(MobileNetV2::builder().alpha(0.35).classes(10).build().unwrap())),
        ("custom", Box::new(custom)),
    ]
}

/// What so many runs allocate, each on one image and on a batch, after one of each that warms up.
fn measure(engine: &mut Engine, runs: usize) -> Stats {
    let [h, w, c] = SIZE;
    let images = Tensor::from_shape_vec([BATCH, h, w, c], values("images", BATCH * h * w * c)).unwrap();
    let image = images.image(0).unwrap();
    let mut output = vec![0.0; BATCH * engine.output_len()];
    let mut run = |times: usize| {
        for _ in 0..times {
            engine.run(image.view(), &mut output[..10]).unwrap();
            engine.run_slice(image.as_slice(), &mut output[..10]).unwrap();
            engine.run_batch(images.view(), &mut output).unwrap();
        }
    };
    run(1);
    let region = Region::new(ALLOCATOR);
    run(runs);
    region.change()
}

/// One test: the counters are the whole process's. Threads come last, as they free what they have when they end.
#[test]
fn runs_allocate_nothing() {
    let shape = [1, SIZE[0], SIZE[1], SIZE[2]];
    let networks = networks();
    for (name, net) in &networks {
        for level in SimdLevel::available() {
            let mut engine = net.compile(shape, &CompileOptions::new().level(level)).unwrap();
            assert_eq!(measure(&mut engine, 100), Stats::default(), "{name} {level}");
        }
        clones_share_weights(name, &net.compile(shape, &CompileOptions::new()).unwrap());
    }
    counters_count();
    let runtime = Runtime::new().threads(2).unwrap();
    for (name, net) in &networks {
        // Each of the 300 enters the pool through rayon's queue, which grows by blocks of 63 places.
        let mut engine = net.compile(shape, &CompileOptions::new().runtime(runtime.clone())).unwrap();
        let stats = measure(&mut engine, 100);
        assert!(stats.allocations + stats.reallocations <= 3 * 100 / 30, "{name} on two threads: {stats:?}");
    }
}

/// A clone takes memory for its maps, and hardly any more.
fn clones_share_weights(name: &str, engine: &Engine) {
    let [weights, maps] = engine.memory();
    let region = Region::new(ALLOCATOR);
    let clone = engine.clone();
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= maps + 1024, "{name}: {allocated} bytes, maps {maps}, weights {weights}");
    assert_eq!(clone.memory(), engine.memory());
}

/// A view that has to be copied is seen.
fn counters_count() {
    let net = ConvBnRelu::<f32>::builder(3, 8).build().unwrap();
    let mut engine = net.compile([1, 4, 5, 3], &CompileOptions::new()).unwrap();
    let planes = Tensor::<f32>::zeros([1, 3, 4, 5]).unwrap();
    let mut output = vec![0.0; engine.output_len()];
    let region = Region::new(ALLOCATOR);
    engine.run(planes.view().permuted_axes([0, 2, 3, 1]), &mut output).unwrap();
    assert!(region.change().allocations > 0);
}
