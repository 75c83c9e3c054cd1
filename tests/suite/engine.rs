//! Compiled networks against the forward of their layers: every SIMD level, number of threads, width and odd shape.
//!
//! An engine's sums round elsewhere than a forward's, so they agree to 1e-4 of the size of what was summed; threads,
//! batches, clones and views must not change a bit.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use mobilenet::check::{Tolerance, compare};
use mobilenet::engine::{CompileOptions, Engine, Filter, FilterWeights, Graph, Value};
use mobilenet::layers::{
    Activation, BatchNorm2d, Conv2d, ConvBnRelu, DepthwiseConv2d, DepthwiseSeparable, Dropout, Flatten,
    GlobalAveragePool, GlobalMaxPool, Initializer, InvertedResidual, Layer, Linear, Relu, Relu6, Role, Sequential,
    Softmax,
};
use mobilenet::models::{BottleneckStage, Head, Network, SeparableStage};
use mobilenet::ndarray::{Array4, ArrayView4, s};
use mobilenet::{
    Element, Error, MobileNetV1, MobileNetV2, Padding, Result, Runtime, Shape, SimdLevel, Tensor, WeightSource,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

use crate::common::{levels, values};

const KERAS_V1: Padding = Padding::Explicit { top: 0, bottom: 1, left: 0, right: 1 };
const LOPSIDED: Padding = Padding::Explicit { top: 2, bottom: 0, left: 1, right: 3 };

/// Pools of 1, 2 and 3 threads, for all tests.
static RUNTIMES: LazyLock<[Runtime; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|count| Runtime::new().threads(count).unwrap()));

fn on(level: SimdLevel, threads: usize) -> CompileOptions {
    CompileOptions::new().runtime(RUNTIMES[threads - 1].clone()).level(level)
}

/// As many threads on the best level.
fn threads(threads: usize) -> CompileOptions {
    CompileOptions::new().runtime(RUNTIMES[threads - 1].clone())
}

/// Values far enough from 0 for ReLU6 to cut some of what becomes of them.
fn images(shape: Shape) -> Tensor<f32> {
    let mut images = Tensor::from_shape_vec(shape, values("images", shape.iter().product())).unwrap();
    images.as_mut_slice().iter_mut().for_each(|value| *value *= 8.0);
    images
}

fn run(engine: &mut Engine, images: ArrayView4<'_, f32>) -> Vec<f32> {
    let mut output = vec![f32::NAN; engine.output_len()];
    engine.run(images, &mut output).unwrap();
    output
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn largest<T: Element>(values: &[T]) -> f64 {
    values.iter().fold(0.0, |size, &value| size.max(Element::to_f64(value).abs()))
}

/// Normalisation and biases as training leaves them, so that it matters whether they are folded well.
fn train<T: Element>(net: &mut dyn Layer<T>) {
    net.visit_mut("", &mut |name, parameter| {
        let role = parameter.role();
        let (centre, spread) = match role {
            Role::NormScale => (1.0, 0.5),
            Role::RunningStatistic if name.ends_with("var") => (1.0, 0.5),
            Role::RunningStatistic => (0.0, 0.25),
            Role::NormShift | Role::Bias => (0.0, 0.5),
            Role::ConvWeight | Role::DepthwiseWeight | Role::LinearWeight => return,
        };
        let drawn = values(&name, parameter.len());
        for (value, drawn) in parameter.as_mut_slice().iter_mut().zip(drawn) {
            *value = T::from_f64(centre + spread * f64::from(drawn));
        }
    });
}

/// Compares engines of every level with the layers' forward, to 1e-4 of `size`, and those of several threads with the
/// one of one to the last bit. What an earlier run left in memory must not matter, though it be NaN.
fn check(net: &dyn Layer<f32>, images: &Tensor<f32>, size: f64) -> Result<(), String> {
    let shape = images.shape();
    let poison = Tensor::from_fn(shape, |_| f32::NAN).unwrap();
    for level in levels() {
        let forward = net.forward_with(images, &Runtime::new().level(level).unwrap()).unwrap();
        let mut alone = net.compile(shape, &on(level, 1)).map_err(|error| format!("{level}: {error}"))?;
        if [alone.input_shape(), alone.output_shape()] != [shape, forward.shape()] {
            return Err(format!("{level}: {:?} to {:?}", alone.input_shape(), alone.output_shape()));
        }
        run(&mut alone, poison.view());
        let found = run(&mut alone, images.view());
        compare(&found, forward.as_slice(), Tolerance::absolute(1e-4 * size))
            .map_err(|report| format!("{level}: {report}"))?;
        for threads in [2, 3] {
            let mut together = net.compile(shape, &on(level, threads)).unwrap();
            run(&mut together, poison.view());
            if bits(&run(&mut together, images.view())) != bits(&found) {
                return Err(format!("{level}: {threads} threads change bits"));
            }
        }
    }
    Ok(())
}

/// Of a network whose outputs are sums of values of their own size.
#[track_caller]
fn assert_equals_forward(net: &dyn Layer<f32>, shape: Shape, what: &str) {
    let images = images(shape);
    let size = largest(net.forward(&images).unwrap().as_slice());
    assert!(size > 1e-3, "{what}: outputs of {size} show nothing");
    if let Err(report) = check(net, &images, size) {
        panic!("{what} at {shape:?}: {report}");
    }
}

fn v1(alpha: f64) -> mobilenet::models::MobileNetV1Builder<f32> {
    MobileNetV1::builder().alpha(alpha).classes(10).initializer(Initializer::Timm)
}

fn v2(alpha: f64) -> mobilenet::models::MobileNetV2Builder<f32> {
    MobileNetV2::builder().alpha(alpha).classes(10).initializer(Initializer::Timm)
}

fn trained(net: impl Into<Network<f32>>) -> Network<f32> {
    let mut net = net.into();
    train(&mut net);
    net
}

#[test]
fn networks_of_every_width_equal_their_layers() {
    let sizes = [[33, 40], [64, 64], [96, 96]];
    for (at, alpha) in [0.1, 0.25, 0.35, 0.75, 1.0, 1.4, 2.0].into_iter().enumerate() {
        let [[h, w], [h2, w2]] = [sizes[at % 3], sizes[(at + 1) % 3]];
        assert_equals_forward(&trained(v1(alpha).build().unwrap()), [1, h, w, 3], &format!("v1 {alpha}"));
        assert_equals_forward(&trained(v2(alpha).build().unwrap()), [1, h2, w2, 3], &format!("v2 {alpha}"));
    }
}

#[test]
fn networks_of_the_published_size_equal_their_layers() {
    assert_equals_forward(&trained(v1(0.5).build().unwrap()), [1, 224, 224, 3], "v1");
    assert_equals_forward(&trained(v2(1.0).build().unwrap()), [1, 224, 224, 3], "v2");
}

#[test]
fn every_head_equals_its_layers() {
    for head in [Head::Classifier, Head::FeatureMap, Head::AveragePool, Head::MaxPool] {
        let what = format!("{head:?}");
        assert_equals_forward(&trained(v1(0.25).head(head).build().unwrap()), [1, 75, 40, 3], &what);
        assert_equals_forward(&trained(v2(0.35).head(head).build().unwrap()), [2, 75, 40, 3], &what);
    }
}

#[test]
fn every_output_stride_equals_its_layers() {
    for stride in [8, 16, 32] {
        for (net, what) in [
            (trained(v1(0.25).output_stride(stride).build().unwrap()), "v1"),
            (trained(v2(0.35).output_stride(stride).head(Head::FeatureMap).build().unwrap()), "v2"),
        ] {
            // Maps of more than 256 pixels under dilation, and of less than the dilated kernel.
            for shape in [[1, 150, 149, 3], [1, 33, 40, 3]] {
                assert_equals_forward(&net, shape, &format!("{what} stride {stride}"));
            }
        }
    }
}

#[test]
fn every_source_equals_its_layers() {
    for source in WeightSource::ALL {
        for shape in [[1, 64, 64, 3], [1, 61, 35, 3]] {
            let what = source.name();
            assert_equals_forward(&trained(v1(0.25).source(source).build().unwrap()), shape, what);
            assert_equals_forward(&trained(v2(0.35).source(source).build().unwrap()), shape, what);
        }
    }
}

#[test]
fn double_precision_networks_compile() {
    let build_v1 = MobileNetV1::<f64>::builder().alpha(0.25).classes(10).initializer(Initializer::Timm);
    let build_v2 = MobileNetV2::<f64>::builder().alpha(0.35).classes(10).initializer(Initializer::Timm);
    let custom = Sequential::<f64>::new()
        .push(Conv2d::builder(3, 12).kernel_size(3).initializer(Initializer::Timm).build().unwrap())
        .push(BatchNorm2d::builder(12).build().unwrap())
        .push(Relu6)
        .push(DepthwiseConv2d::builder(12).channel_multiplier(2).initializer(Initializer::Timm).build().unwrap())
        .push(GlobalMaxPool)
        .push(Linear::builder(24, 5).initializer(Initializer::Timm).build().unwrap())
        .push(Softmax);
    let nets: [Box<dyn Layer<f64>>; 3] =
        [Box::new(build_v1.build().unwrap()), Box::new(build_v2.build().unwrap()), Box::new(custom)];
    for mut net in nets {
        train(&mut *net);
        let images = images([1, 33, 40, 3]);
        let wide = images.as_slice().iter().map(|&value| f64::from(value)).collect();
        let expected = net.forward(&Tensor::from_shape_vec(images.shape(), wide).unwrap()).unwrap();
        for level in levels() {
            let found = run(&mut net.compile(images.shape(), &on(level, 1)).unwrap(), images.view());
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            let tolerance = Tolerance::absolute(1e-4 * largest(expected.as_slice()));
            mobilenet::check::assert_close(&found, expected.as_slice(), tolerance);
        }
    }
}

/// A layer of a random chain, or what it cannot be: numbers that are read as the map before it allows.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    channels: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: Option<Padding>,
    /// Expansion ratio, channel multiplier, or which of the possible numbers of groups.
    ratio: usize,
    activation: Activation,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pointwise,
    Dense,
    Grouped,
    Depthwise,
    DepthwiseWithBias,
    Plain,
    Separable,
    Inverted,
    /// As wide as its input.
    Residual,
    Norm,
    Activation,
    Dropout,
    Softmax,
    AveragePool,
    MaxPool,
    Flatten,
    Linear,
}

/// What ends a chain.
const ENDS: [&[Kind]; 8] = [
    &[],
    &[],
    &[Kind::AveragePool],
    &[Kind::MaxPool, Kind::Linear],
    &[Kind::AveragePool, Kind::Dropout, Kind::Linear, Kind::Softmax],
    &[Kind::Flatten],
    &[Kind::Flatten, Kind::Linear, Kind::Activation],
    &[Kind::Linear, Kind::Norm],
];

/// Multiply-adds of a part at most, so that the scalar level is quick.
const MOST: usize = 20_000_000;

/// The chain with a layer at its end, for maps of this shape; an error if the part does not fit.
fn push(net: Sequential<f32>, part: Part, [_, h, w, inputs]: Shape) -> Result<Sequential<f32>> {
    let Part { kind, channels, kernel, stride, dilation, padding, ratio, activation } = part;
    let timm = Initializer::Timm;
    // Whole numbers of groups, but not as many as channels.
    let groups = |outputs: usize| {
        let possible = (1..inputs).filter(|g| inputs.is_multiple_of(*g) && outputs.is_multiple_of(*g));
        possible.clone().nth(ratio % possible.count().max(1)).unwrap_or(1)
    };
    macro_rules! windowed {
        ($builder:expr) => {{
            let builder = $builder.kernel_size(kernel).stride(stride).dilation(dilation).initializer(timm);
            let builder = builder.seed(channels as u64);
            if let Some(padding) = padding { builder.padding(padding) } else { builder }.build()?
        }};
    }
    Ok(match kind {
        Kind::Pointwise => {
            net.push(ConvBnRelu::builder(inputs, channels).activation(activation).initializer(timm).build()?)
        }
        Kind::Dense => net.push(windowed!(ConvBnRelu::builder(inputs, channels).activation(activation))),
        Kind::Grouped => {
            let channels = if channels.is_multiple_of(inputs) { channels } else { 2 * inputs };
            let groups = groups(channels);
            net.push(windowed!(ConvBnRelu::builder(inputs, channels).groups(groups).activation(activation)))
        }
        Kind::Depthwise => {
            net.push(windowed!(ConvBnRelu::builder(inputs, inputs).groups(inputs).activation(activation)))
        }
        Kind::DepthwiseWithBias => net.push(windowed!(DepthwiseConv2d::builder(inputs).channel_multiplier(ratio))),
        Kind::Plain => net.push(windowed!(Conv2d::builder(inputs, channels))),
        Kind::Separable => {
            let builder = DepthwiseSeparable::builder(inputs, channels).channel_multiplier(ratio);
            net.push(windowed!(builder.activation(activation)))
        }
        Kind::Inverted => {
            let builder = InvertedResidual::builder(inputs, channels).expand_ratio(ratio);
            net.push(windowed!(builder.activation(activation)))
        }
        Kind::Residual => {
            let builder = InvertedResidual::builder(inputs, inputs).expand_ratio(ratio).kernel_size(kernel);
            net.push(builder.dilation(dilation).activation(activation).initializer(timm).build()?)
        }
        Kind::Norm => net.push(BatchNorm2d::builder(inputs).build()?),
        Kind::Activation => match activation {
            Activation::Relu6 => net.push(Relu6),
            _ => net.push(Relu),
        },
        Kind::Dropout => net.push(Dropout::new(0.5)?),
        Kind::Softmax => net.push(Softmax),
        Kind::AveragePool => net.push(GlobalAveragePool),
        Kind::MaxPool => net.push(GlobalMaxPool),
        Kind::Flatten => net.push(Flatten),
        Kind::Linear => net.push(Linear::builder(h * w * inputs, channels).initializer(timm).build()?),
    })
}

fn part() -> impl Strategy<Value = Part> {
    use Kind::{
        Activation as Active, AveragePool, Dense, Depthwise, DepthwiseWithBias, Dropout, Grouped, Inverted, Norm,
        Plain, Pointwise, Residual, Separable, Softmax,
    };
    let often = select(
        &[
            Pointwise,
            Pointwise,
            Dense,
            Grouped,
            Depthwise,
            Depthwise,
            DepthwiseWithBias,
            Plain,
            Separable,
            Inverted,
            Inverted,
            Residual,
            Residual,
            Norm,
            Active,
            Active,
        ][..],
    );
    let kind = prop_oneof![12 => often, 1 => select(&[Dropout, Softmax, AveragePool][..])];
    let paddings = [Padding::Same, Padding::VALID, Padding::Symmetric(1), Padding::Symmetric(4), KERAS_V1, LOPSIDED];
    (
        kind,
        select(&[1, 3, 5, 8, 12, 16, 17, 24, 40, 64][..]),
        select(&[1, 3, 3, 5, 7][..]),
        select(&[1, 1, 2, 3][..]),
        select(&[1, 1, 1, 2][..]),
        prop_oneof![Just(None), select(paddings.to_vec()).prop_map(Some)],
        select(&[1, 2, 6][..]),
        select(&[Activation::None, Activation::Relu, Activation::Relu6][..]),
    )
        .prop_map(|(kind, channels, kernel, stride, dilation, padding, ratio, activation)| Part {
            kind,
            channels,
            kernel,
            stride,
            dilation,
            padding,
            ratio,
            activation,
        })
}

/// A chain of those parts that fit, and the largest magnitude of its maps: its sums round in proportion to them.
fn chain(parts: &[Part], images: &Tensor<f32>) -> (Sequential<f32>, f64) {
    let mut net = Sequential::new();
    let mut map = images.clone();
    let mut size = largest(map.as_slice());
    for &part in parts {
        let next = push(Sequential::new(), part, map.shape()).and_then(|layer| {
            let cost = layer.multiply_adds(map.shape())?;
            let [_, h, w, c] = layer.output_shape(map.shape())?;
            Ok((cost <= MOST as u64 && h * w * c <= 200_000).then_some(layer))
        });
        let Ok(Some(mut layer)) = next else { continue };
        train(&mut layer);
        map = layer.forward(&map).unwrap();
        size = size.max(largest(map.as_slice()));
        net = net.push(layer);
    }
    (net, size)
}

fn config() -> ProptestConfig {
    let cases = if cfg!(debug_assertions) { 60 } else { 200 };
    let default = ProptestConfig::default();
    // `PROPTEST_CASES` makes it fewer.
    ProptestConfig {
        cases: default.cases.min(cases),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..default
    }
}

fn fails(report: String) -> TestCaseError {
    TestCaseError::fail(report)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_chains_equal_their_layers(
        size in [1_usize..41, 1_usize..41], channels in select(&[1, 3, 5, 8, 12, 16, 17, 24, 40][..]),
        parts in prop::collection::vec(part(), 1..8), end in select(&ENDS[..]),
    ) {
        let images = images([1, size[0], size[1], channels]);
        let last = parts[0];
        let parts: Vec<Part> = parts.into_iter().chain(end.iter().map(|&kind| Part { kind, ..last })).collect();
        let (net, size) = chain(&parts, &images);
        check(&net, &images, size).map_err(fails)?;
    }

    #[test]
    fn random_stages_equal_their_layers(
        size in [1_usize..41, 1_usize..41], channels in 1_usize..5,
        stages in prop::collection::vec(
            (select(&[1, 3, 5, 7][..]), select(&[1, 2, 6][..]), 1_usize..41, 1_usize..3, 1_usize..4), 0..5),
        alpha in select(&[0.5, 1.0, 1.3][..]), source in select(WeightSource::ALL.to_vec()),
        stride in select(&[None, None, Some(8), Some(16), Some(32)][..]),
        head in select(&[Head::Classifier, Head::FeatureMap, Head::AveragePool, Head::MaxPool][..]),
    ) {
        let shape = [1, size[0], size[1], channels];
        let first: Vec<_> = stages.iter().map(|&(kernel_size, _, width, repeats, stride)| SeparableStage {
            kernel_size, width, repeats, stride,
        }).collect();
        let second: Vec<_> = stages.iter().map(|&(kernel_size, expansion, width, repeats, stride)| BottleneckStage {
            kernel_size, expansion, width, repeats, stride,
        }).collect();
        let (mut one, mut two) = (v1(alpha).stages(first), v2(alpha).stages(second));
        if let Some(stride) = stride {
            (one, two) = (one.output_stride(stride), two.output_stride(stride));
        }
        let one = one.source(source).head(head).in_channels(channels).build();
        let two = two.source(source).head(head).in_channels(channels).build();
        for net in [one.map(Network::from), two.map(Network::from)] {
            // Stages may be impossible: what the builder refuses, or a map that has no room for a window.
            let Ok(net) = net else { continue };
            let net = trained(net);
            let images = images(shape);
            let Ok(output) = net.forward(&images) else {
                prop_assert!(net.compile(shape, &CompileOptions::new()).is_err());
                continue;
            };
            check(&net, &images, largest(output.as_slice()).max(1.0)).map_err(fails)?;
        }
    }
}

fn plain(kind: Kind) -> Part {
    Part {
        kind,
        channels: 24,
        kernel: 3,
        stride: 1,
        dilation: 1,
        padding: None,
        ratio: 2,
        activation: Activation::Relu6,
    }
}

/// A map of at most 64 pixels that a projection of many channels makes, which the next block pads in place and adds.
#[test]
fn projections_by_halves_change_no_bit_with_zeros_around_them() {
    for ratio in [7, 11] {
        let mut net = Sequential::new()
            .push(InvertedResidual::builder(5, 17).expand_ratio(ratio).build().unwrap())
            .push(InvertedResidual::builder(17, 17).expand_ratio(1).build().unwrap());
        train(&mut net);
        let shape = [1, 7, 7, 5];
        let plan = net.compile(shape, &threads(2)).unwrap().plan().to_string();
        assert!(plan.contains("halves"), "{plan}");
        assert_equals_forward(&net, shape, "two blocks");
        let expected = bits(&run(&mut net.compile(shape, &threads(1)).unwrap(), images(shape).view()));
        for count in [4, 6] {
            let mut engine = net.compile(shape, &CompileOptions::new().threads(count)).unwrap();
            assert_eq!(bits(&run(&mut engine, images(shape).view())), expected, "{count} threads");
        }
    }
}

#[test]
fn more_threads_than_rows_and_blocks_change_no_bit() {
    for (name, net) in samples() {
        for shape in [[1, 33, 40, 3], [1, 1, 1, 3], [5, 1, 37, 3]] {
            let images = images(shape);
            let expected = bits(&run(&mut net.compile(shape, &CompileOptions::new()).unwrap(), images.view()));
            for count in [4, 7, 16] {
                let mut engine = net.compile(shape, &CompileOptions::new().threads(count)).unwrap();
                assert_eq!(bits(&run(&mut engine, images.view())), expected, "{name} {shape:?} {count} threads");
            }
        }
    }
}

/// What is wrong with the chain of these, if anything: a list of such chains says more than the first of them.
fn wrong(kinds: &[Kind], shape: Shape) -> Option<String> {
    let images = images(shape);
    let parts: Vec<Part> = kinds.iter().map(|&kind| plain(kind)).collect();
    let (net, size) = chain(&parts, &images);
    assert_eq!(net.len(), kinds.len(), "{kinds:?} do not fit {shape:?}");
    let result = catch_unwind(AssertUnwindSafe(|| check(&net, &images, size)));
    let report = result.unwrap_or_else(|_| Err("panics".into())).err()?;
    Some(format!("{kinds:?} at {shape:?}: {report}"))
}

#[test]
fn every_pair_of_layers_equals_its_layers() {
    use Kind::{
        Activation as Active, AveragePool, Dense, Depthwise, DepthwiseWithBias, Dropout, Flatten, Grouped, Inverted,
        Linear, MaxPool, Norm, Plain, Pointwise, Residual, Separable, Softmax,
    };
    let kinds = [
        Pointwise,
        Dense,
        Grouped,
        Depthwise,
        DepthwiseWithBias,
        Plain,
        Separable,
        Inverted,
        Residual,
        Norm,
        Active,
        Dropout,
        Softmax,
        AveragePool,
        MaxPool,
        Flatten,
        Linear,
    ];
    let mut all = Vec::new();
    for first in kinds {
        // Kept by rows and by planes, and one pixel; channels that fill a block and that do not.
        for shape in [[1, 19, 18, 3], [1, 9, 8, 16], [1, 1, 1, 5]] {
            all.extend(wrong(&[first], shape));
            all.extend(kinds.iter().filter_map(|&second| wrong(&[first, second], shape)));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn chains_without_work_copy_their_input() {
    let nothing = Sequential::<f32>::new();
    let dropout = Sequential::<f32>::new().push(Dropout::new(0.2).unwrap()).push(nothing.clone());
    let flat = Sequential::<f32>::new().push(Flatten).push(Flatten);
    for net in [nothing, dropout, flat] {
        for shape in [[1, 3, 4, 5], [2, 1, 1, 17], [1, 30, 30, 2]] {
            for count in [1, 2, 3] {
                let images = images(shape);
                let mut engine = net.compile(shape, &threads(count)).unwrap();
                assert_eq!(run(&mut engine, images.view()), images.as_slice(), "{net:?}");
            }
        }
    }
}

/// A layer as a user writes one: the sum of every pixel and its right neighbour, in twice the channels.
#[derive(Clone, Debug)]
struct Neighbours;

impl Layer<f32> for Neighbours {
    fn kind(&self) -> &'static str {
        "Neighbours"
    }

    fn output_shape(&self, [n, h, w, c]: Shape) -> Result<Shape> {
        Ok([n, h, w, 2 * c])
    }

    fn forward_with(&self, input: &Tensor<f32>, _: &Runtime) -> Result<Tensor<f32>> {
        let width = input.shape()[2];
        Tensor::from_fn(self.output_shape(input.shape())?, |[n, h, w, c]| {
            input.view()[[n, h, w, c / 2]] + input.view()[[n, h, (w + 1).min(width - 1), c / 2]]
        })
    }
}

/// A user's layer that fails, or gives another shape than it said.
#[derive(Clone, Debug)]
enum Broken {
    Fails,
    Lies,
}

impl Layer<f32> for Broken {
    fn kind(&self) -> &'static str {
        "Broken"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<f32>, _: &Runtime) -> Result<Tensor<f32>> {
        match self {
            Self::Fails => Err(Error::invalid("broken", "moon", "full", "new")),
            Self::Lies => {
                let [n, h, w, c] = input.shape();
                Tensor::zeros([n, h + 1, w, c])
            }
        }
    }
}

fn stem(outputs: usize) -> ConvBnRelu<f32> {
    let builder = ConvBnRelu::builder(3, outputs).kernel_size(3).stride(2).initializer(Initializer::Timm);
    builder.build().unwrap()
}

#[test]
fn a_layer_of_the_users_runs_through_its_forward() {
    let own = || Sequential::new().push(stem(12)).push(Neighbours).push(DepthwiseConv2d::builder(24).build().unwrap());
    let first = Sequential::new().push(Neighbours).push(ConvBnRelu::builder(6, 8).build().unwrap());
    let last = Sequential::new().push(stem(17)).push(GlobalAveragePool).push(Neighbours);
    let nested = own().push(Sequential::new().push(GlobalMaxPool).push(Neighbours)).push(Relu6);
    for (net, what) in [(own(), "in the middle"), (first, "first"), (last, "last"), (nested, "nested")] {
        for shape in [[1, 16, 15, 3], [1, 50, 47, 3], [3, 9, 9, 3]] {
            let mut net = net.clone();
            train(&mut net);
            assert_equals_forward(&net, shape, what);
        }
    }
}

fn own_head() -> Sequential<f32> {
    Sequential::new().push(GlobalMaxPool).push(Neighbours).push(Linear::builder(96, 10).build().unwrap())
}

#[test]
fn what_a_layer_of_the_users_does_wrong_is_an_error_of_the_run() {
    for (broken, expected) in [
        (Broken::Fails, "broken: moon is full, expected new"),
        (Broken::Lies, "run: output of a layer has shape [1, 5, 4, 8], expected [1, 4, 4, 8]"),
    ] {
        let net = Sequential::new().push(stem(8)).push(broken).push(GlobalAveragePool);
        for count in [1, 2, 3] {
            let mut engine = net.compile([1, 8, 8, 3], &threads(count)).unwrap();
            let images = images([7, 8, 8, 3]);
            let error = engine.run_batch(images.view(), &mut [0.0; 56]).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            let one = images.view().slice_move(s![..1, .., .., ..]);
            let error = engine.run(one, &mut [0.0; 8]).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(engine.profile(one, 2).is_err());
        }
    }
}

/// A user's layer that calls something, on its way from its input to its output.
#[derive(Clone)]
struct Calls(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Layer<f32> for Calls {
    fn kind(&self) -> &'static str {
        "Calls"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<f32>, _: &Runtime) -> Result<Tensor<f32>> {
        (self.0)();
        Ok(input.clone())
    }
}

#[test]
fn a_run_does_not_wait_for_another_of_its_pool() {
    let options = threads(2).runtime(Runtime::new().threads(2).unwrap());
    let compile = |call: Arc<dyn Fn() + Send + Sync>| {
        Sequential::new().push(Calls(call)).compile([1, 2, 2, 3], &options).unwrap()
    };
    let ((begin, begun), (end, ended), (free, freed)) = (channel(), channel(), channel::<()>());
    let mut short = compile(Arc::new(move || {
        begin.send(()).unwrap();
        thread::sleep(Duration::from_millis(50));
    }));
    let freed = Mutex::new(freed);
    let mut long = compile(Arc::new(move || freed.lock().unwrap().recv().unwrap()));
    let image = &images([1, 2, 2, 3]);
    thread::scope(|scope| {
        // Begins while the other thread of the pool still looks for parts of the short run.
        scope.spawn(move || {
            begun.recv().unwrap();
            run(&mut long, image.view());
        });
        scope.spawn(|| {
            run(&mut short, image.view());
            end.send(()).unwrap();
        });
        let first = ended.recv_timeout(Duration::from_secs(30));
        free.send(()).unwrap();
        first.expect("the short run ends before the long one");
    });
}

#[test]
fn a_layer_of_the_users_may_panic() {
    for count in [1, 2, 3] {
        let panics = AtomicBool::new(true);
        let call = move || assert!(!panics.swap(false, Ordering::Relaxed), "as a test wants it");
        let net = Sequential::new().push(stem(8)).push(Calls(Arc::new(call)));
        let mut engine = net.compile([1, 8, 8, 3], &threads(count)).unwrap();
        let image = images([1, 8, 8, 3]);
        assert!(catch_unwind(AssertUnwindSafe(|| run(&mut engine, image.view()))).is_err());
        let mut other = net.compile([1, 8, 8, 3], &threads(1)).unwrap();
        assert_eq!(bits(&run(&mut engine, image.view())), bits(&run(&mut other, image.view())));
    }
}

/// Networks with ten outputs: both families, and one of other layers and a user's.
fn samples() -> [(&'static str, Box<dyn Layer<f32>>); 3] {
    let other = Sequential::new()
        .push(stem(12))
        .push(Neighbours)
        .push(DepthwiseConv2d::builder(24).channel_multiplier(2).kernel_size(5).build().unwrap())
        .push(InvertedResidual::builder(48, 48).expand_ratio(2).build().unwrap())
        .push(own_head());
    let mut nets: [(_, Box<dyn Layer<f32>>); 3] = [
        ("v1", Box::new(v1(0.25).build().unwrap())),
        ("v2", Box::new(v2(0.35).build().unwrap())),
        ("other", Box::new(other)),
    ];
    for (_, net) in &mut nets {
        train(&mut **net);
    }
    nets
}

#[test]
fn batches_equal_single_runs_to_the_last_bit() {
    for (name, net) in samples() {
        let all = images([7, 33, 40, 3]);
        let mut alone = net.compile([1, 33, 40, 3], &CompileOptions::new()).unwrap();
        let expected: Vec<f32> = (0..7).flat_map(|index| run(&mut alone, all.image(index).unwrap().view())).collect();
        for count in [1, 2, 3] {
            for images in [1, 2, 3, 5] {
                let mut engine = net.compile([images, 33, 40, 3], &threads(count)).unwrap();
                assert_eq!(engine.output_shape(), [images, 1, 1, 10]);
                let found = run(&mut engine, all.view().slice(s![..images, .., .., ..]));
                assert_eq!(bits(&found), bits(&expected[..images * 10]), "{name} {images} images {count} threads");
            }
            // Any number on an engine that was compiled for another.
            let mut engine = net.compile([2, 33, 40, 3], &threads(count)).unwrap();
            for images in [0, 7, 1, 2, 6, 3, 4, 5] {
                let mut found = vec![f32::NAN; images * 10];
                engine.run_batch(all.view().slice(s![..images, .., .., ..]), &mut found).unwrap();
                assert_eq!(bits(&found), bits(&expected[..images * 10]), "{name} batch of {images}, {count} threads");
            }
        }
    }
}

#[test]
fn a_slice_equals_the_view() {
    for (name, net) in samples() {
        let images = images([2, 33, 40, 3]);
        let mut engine = net.compile(images.shape(), &CompileOptions::new()).unwrap();
        let mut found = vec![f32::NAN; engine.output_len()];
        engine.run_slice(images.as_slice(), &mut found).unwrap();
        assert_eq!(bits(&found), bits(&run(&mut engine, images.view())), "{name}");
    }
}

#[test]
fn views_that_are_not_contiguous_equal_their_copies() {
    let net = trained(v2(0.35).build().unwrap());
    let shape = [2, 33, 40, 3];
    let images = images(shape);
    let mut engine = net.compile(shape, &threads(2)).unwrap();
    let expected = bits(&run(&mut engine, images.view()));
    let planes = images.to_nchw();
    assert_eq!(bits(&run(&mut engine, planes.view().permuted_axes([0, 2, 3, 1]))), expected, "planes");
    // Inside something larger, and every other row of it.
    let mut larger = Array4::from_elem([3, 70, 44, 5], f32::NAN);
    let inside = s![1.., 2..68;2, 3..43, 1..4];
    larger.slice_mut(inside).assign(&images.view());
    assert_eq!(bits(&run(&mut engine, larger.slice(inside))), expected, "slice");
    // Mirrored twice.
    let mirrored = Array4::from_shape_fn(shape, |(n, h, w, c)| images.view()[[n, 32 - h, 39 - w, c]]);
    assert_eq!(bits(&run(&mut engine, mirrored.slice(s![.., ..;-1, ..;-1, ..]))), expected, "mirrored");
    let mut found = vec![f32::NAN; 20];
    engine.run_batch(planes.view().permuted_axes([0, 2, 3, 1]), &mut found).unwrap();
    assert_eq!(bits(&found), expected, "batch");
    let one = planes.slice(s![..1, .., .., ..]);
    let mut single = net.compile([1, 33, 40, 3], &CompileOptions::new()).unwrap();
    assert!(single.profile(one.permuted_axes([0, 2, 3, 1]), 1).is_ok());
}

/// One value of all channels of all pixels: read with steps of 0.
#[test]
fn a_broadcast_view_equals_its_copy() {
    let net = trained(v1(0.25).build().unwrap());
    let grey = images([1, 33, 40, 1]);
    let view = grey.view();
    let view = view.broadcast([1, 33, 40, 3]).unwrap();
    let mut engine = net.compile([1, 33, 40, 3], &CompileOptions::new()).unwrap();
    let found = run(&mut engine, view);
    assert_eq!(bits(&found), bits(&run(&mut engine, view.to_owned().view())));
}

#[test]
fn clones_are_independent_and_share_weights_and_threads() {
    const fn can_be_sent<T: Send + 'static>() {}
    const { can_be_sent::<Engine>() };
    for (name, net) in samples() {
        for count in [1, 2] {
            let mut engine = net.compile([1, 33, 40, 3], &threads(count)).unwrap();
            let all = images([8, 33, 40, 3]);
            let image = |index: usize| all.image(index % 8).unwrap();
            let expected: Vec<_> = (0..8).map(|index| bits(&run(&mut engine, image(index).view()))).collect();
            let mut clones: Vec<Engine> = (0..8).map(|_| engine.clone()).collect();
            for clone in &clones {
                assert_eq!(clone.memory(), engine.memory());
                assert_eq!(clone.plan(), engine.plan());
                assert_eq!(clone.runtime().thread_count(), count);
            }
            // One after the other, so that each runs between two runs of every other.
            for turn in 0..3 {
                for (index, clone) in clones.iter_mut().enumerate() {
                    let found = bits(&run(clone, image(index + turn).view()));
                    assert_eq!(found, expected[(index + turn) % 8], "{name} clone {index}");
                }
            }
            // At once, the original dropped.
            drop(engine);
            thread::scope(|scope| {
                for (index, mut clone) in clones.into_iter().enumerate() {
                    let (image, expected) = (&image, &expected);
                    scope.spawn(move || {
                        for turn in 0..5 {
                            let found = bits(&run(&mut clone, image(index + turn).view()));
                            assert_eq!(found, expected[(index + turn) % 8], "{name} clone {index} on a thread");
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn options_choose_level_and_threads() {
    let net = v2(0.35).build().unwrap();
    let shape = [1, 32, 32, 3];
    let default = net.compile(shape, &CompileOptions::new()).unwrap();
    assert_eq!((default.runtime().simd_level(), default.runtime().thread_count()), (SimdLevel::detect(), 1));
    let runtime = Runtime::new().level(SimdLevel::Scalar).unwrap().threads(3).unwrap();
    let options = CompileOptions::new().runtime(runtime);
    let engine = net.compile(shape, &options).unwrap();
    assert_eq!((engine.runtime().simd_level(), engine.runtime().thread_count()), (SimdLevel::Scalar, 3));
    // Each setter on its own wins over the runtime.
    let engine = net.compile(shape, &options.clone().threads(2)).unwrap();
    assert_eq!((engine.runtime().simd_level(), engine.runtime().thread_count()), (SimdLevel::Scalar, 2));
    let engine = net.compile(shape, &options.level(SimdLevel::detect())).unwrap();
    assert_eq!((engine.runtime().simd_level(), engine.runtime().thread_count()), (SimdLevel::detect(), 3));
}

#[track_caller]
fn assert_says<T>(result: Result<T>, words: &[&str]) {
    let Err(error) = result else { panic!("no error that says {words:?}") };
    assert!(matches!(error, Error::Shape { .. } | Error::Invalid { .. }), "{error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

#[test]
fn wrong_inputs_and_outputs_are_errors_that_say_what_was_found_and_expected() {
    let net = v2(0.35).build().unwrap();
    for count in [1, 2] {
        let mut engine = net.compile([2, 32, 33, 3], &threads(count)).unwrap();
        let engine = &mut engine;
        let mut output = vec![7.0; 20];
        for (shape, found) in [
            ([1, 32, 33, 3], "[1, 32, 33, 3]"),
            ([3, 32, 33, 3], "[3, 32, 33, 3]"),
            ([2, 33, 32, 3], "[2, 33, 32, 3]"),
            ([2, 32, 33, 4], "[2, 32, 33, 4]"),
            ([0, 32, 33, 3], "[0, 32, 33, 3]"),
            ([2, 0, 33, 3], "[2, 0, 33, 3]"),
            ([2, 32, 33, 0], "[2, 32, 33, 0]"),
        ] {
            let images = Tensor::zeros(shape).unwrap();
            assert_says(engine.run(images.view(), &mut output), &["run: input", found, "expected [2, 32, 33, 3]"]);
            if shape[1..] != [32, 33, 3] {
                let batch = engine.run_batch(images.view(), &mut output);
                assert_says(batch, &["run: input", found, "expected [N, 32, 33, 3]"]);
            }
            let profile = engine.profile(images.view(), 1);
            if shape[0] != 1 {
                assert_says(profile, &["profile: input", found, "expected [1, 32, 33, 3]"]);
            }
        }
        let images = Tensor::zeros([2, 32, 33, 3]).unwrap();
        for (len, found) in [(0, "[0]"), (19, "[19]"), (21, "[21]"), (10, "[10]")] {
            let mut output = vec![0.0; len];
            assert_says(engine.run(images.view(), &mut output), &["run: output", found, "expected 20 elements"]);
            let batch = engine.run_batch(images.view(), &mut output);
            assert_says(batch, &["run: output", found, "expected 20 elements"]);
            let slice = engine.run_slice(images.as_slice(), &mut output);
            assert_says(slice, &["run: output", found, "expected 20 elements"]);
        }
        let none = Tensor::zeros([0, 32, 33, 3]).unwrap();
        assert_says(engine.run_batch(none.view(), &mut output), &["run: output", "[20]", "expected 0 elements"]);
        let one = Tensor::zeros([1, 32, 33, 3]).unwrap();
        assert_says(engine.profile(one.view(), 0), &["profile: runs is 0", "expected at least 1"]);
        assert_eq!(output, vec![7.0; 20], "an output that was refused is left alone");
        engine.run(images.view(), &mut output).unwrap();
    }
}

#[test]
fn slices_of_any_other_length_are_errors() {
    let mut engine = stem(8).compile([2, 32, 33, 3], &CompileOptions::new()).unwrap();
    let mut output = vec![7.0; engine.output_len()];
    for (len, found) in [(0, "[0]"), (3168, "[3168]"), (6335, "[6335]"), (6337, "[6337]"), (9504, "[9504]")] {
        let slice = engine.run_slice(&vec![0.0; len], &mut output);
        assert_says(slice, &["run: input", found, "expected the elements of [2, 32, 33, 3]"]);
    }
    assert_eq!(output, vec![7.0; engine.output_len()], "an output that was refused is left alone");
}

#[test]
fn maps_that_no_memory_holds_are_errors() {
    // The input could be counted; its 65536 times as many outputs overflow even that.
    let wide = ConvBnRelu::<f32>::builder(1, 1 << 16).build().unwrap();
    assert_says(wide.compile([1, 1 << 24, 1 << 24, 1], &CompileOptions::new()), &["65536"]);
}

#[test]
fn what_cannot_be_compiled_is_an_error_that_says_what_was_found_and_expected() {
    let net = v2(0.35).build().unwrap();
    let default = CompileOptions::new();
    let shape = [1, 32, 32, 3];
    assert_says(net.compile(shape, &default.clone().threads(0)), &["threads is 0", "expected 1 to 1024"]);
    assert_says(net.compile(shape, &default.clone().threads(1025)), &["threads is 1025", "expected 1 to 1024"]);
    let foreign = if cfg!(target_arch = "aarch64") { SimdLevel::Avx2 } else { SimdLevel::Neon };
    let words = ["level is ", foreign.name(), "expected one of scalar"];
    assert_says(net.compile(shape, &default.clone().level(foreign)), &words);
    assert_says(net.compile([1, 32, 32, 4], &default), &["[1, 32, 32, 4]", "expected [N, H, W, 3]"]);
    assert_says(net.compile([0, 32, 32, 3], &default), &["compile: input", "[0, 32, 32, 3]", "at least one image"]);
    assert_says(net.compile([1, 0, 32, 3], &default), &["[0, 32]", "expected 1 to"]);
    assert_says(net.compile([1, 32, 0, 3], &default), &["[32, 0]", "expected 1 to"]);
    let anything = Sequential::<f32>::new().push(Relu).push(Flatten);
    for (shape, found) in [
        ([0, 3, 3, 3], "[0, 3, 3, 3]"),
        ([1, 0, 3, 3], "[1, 0, 3, 3]"),
        ([1, 3, 0, 3], "[1, 3, 0, 3]"),
        ([1, 3, 3, 0], "[1, 3, 3, 0]"),
    ] {
        assert_says(anything.compile(shape, &default), &["input", found, "at least one"]);
    }
    // Sizes that no memory holds.
    for shape in [[1, usize::MAX, 3, 3], [usize::MAX, 3, 3, 3], [1, 1 << 31, 1 << 31, 1 << 31]] {
        assert!(anything.compile(shape, &default).is_err(), "{shape:?}");
    }
    let valid = Sequential::new()
        .push(stem(8))
        .push(ConvBnRelu::<f32>::builder(8, 8).kernel_size(7).padding(Padding::VALID).build().unwrap());
    assert_says(valid.compile([1, 12, 20, 3], &default), &["is 6", "at least the window's extent 7"]);
}

#[test]
fn plan_lists_every_step_and_counts_all_work() {
    let shape = [1, 224, 224, 3];
    for (name, net) in [("v1", Network::from(v1(1.0).build().unwrap())), ("v2", v2(1.0).build().unwrap().into())] {
        for count in [1, 2, 3] {
            let engine = net.compile(shape, &threads(count)).unwrap();
            let plan = engine.plan();
            let work: u64 = plan.rows.iter().map(|row| row.multiply_adds).sum();
            assert_eq!(work, net.multiply_adds(shape).unwrap(), "{name}");
            let text = plan.to_string();
            // A head and a sum.
            assert_eq!(text.lines().count(), plan.rows.len() + 2, "{text}");
            for (line, row) in text.lines().skip(1).zip(&plan.rows) {
                assert!(line.starts_with(&row.name) && line.contains(&row.kernel), "{line} is not {}", row.name);
                assert!((1..=count).contains(&row.parts), "{name}: {} parts", row.parts);
            }
            assert_eq!(plan.rows.last().unwrap().output, [1, 1, 1, 10], "{name}");
            assert_eq!(engine.memory(), [plan.weight_bytes, count * plan.activation_bytes], "{name}");
            let weights = 4 * net.parameter_count();
            assert!(
                (weights / 10 * 9..weights / 10 * 12).contains(&plan.weight_bytes),
                "{name}: {}",
                plan.weight_bytes
            );
            if (name, count) == ("v2", 1) {
                assert!(plan.activation_bytes <= 3_000_000, "{name}: {} bytes", plan.activation_bytes);
            }
        }
    }
}

#[test]
fn plan_of_other_layers_counts_all_work() {
    let net = Sequential::<f32>::new()
        .push(stem(12))
        .push(DepthwiseConv2d::builder(12).channel_multiplier(2).kernel_size(5).build().unwrap())
        .push(ConvBnRelu::builder(24, 36).groups(3).kernel_size(3).build().unwrap())
        .push(Relu)
        .push(InvertedResidual::builder(36, 36).expand_ratio(2).kernel_size(5).build().unwrap())
        .push(GlobalMaxPool)
        .push(Linear::builder(36, 5).build().unwrap())
        .push(Softmax);
    for shape in [[1, 65, 40, 3], [1, 17, 16, 3]] {
        let plan = net.compile(shape, &CompileOptions::new()).unwrap().plan();
        let work: u64 = plan.rows.iter().map(|row| row.multiply_adds).sum();
        assert_eq!(work, net.multiply_adds(shape).unwrap(), "{plan}");
        assert_eq!(plan.to_string().lines().count(), plan.rows.len() + 2);
    }
}

#[test]
fn profile_times_every_step_of_the_plan() {
    for (name, net) in samples() {
        for count in [1, 2] {
            // An engine for more images is profiled on one.
            let mut engine = net.compile([2, 96, 96, 3], &threads(count)).unwrap();
            for runs in [1, 4] {
                let profile = engine.profile(images([1, 96, 96, 3]).view(), runs).unwrap();
                let steps: Vec<_> = profile.rows.iter().map(|row| row.step.clone()).collect();
                assert_eq!(steps, engine.plan().rows, "{name}");
                let shares: f64 = profile.rows.iter().map(|row| profile.share(row)).sum();
                assert!((shares - 1.0).abs() < 1e-9, "{name}: shares sum to {shares}");
                for row in &profile.rows {
                    assert!(row.time.as_nanos() > 0, "{name}: {row:?}");
                    assert_eq!(row.gflops() > 0.0, row.step.multiply_adds > 0, "{name}: {row:?}");
                }
                assert_eq!(profile.total(), profile.rows.iter().map(|row| row.time).sum());
                assert_eq!(profile.to_string().lines().count(), profile.rows.len() + 2, "{profile}");
            }
        }
    }
}

/// A scale of channels that died in training: times weights of the order of 1 it is subnormal.
const DEAD: f64 = 1e-42;

/// A dense, a depthwise and a pointwise convolution.
fn convolutions<T: Element>() -> Sequential<T> {
    let builder = |inputs, outputs| {
        ConvBnRelu::builder(inputs, outputs).activation(Activation::None).initializer(Initializer::Timm)
    };
    Sequential::new()
        .push(builder(24, 24).kernel_size(3).build().unwrap())
        .push(builder(24, 24).groups(24).kernel_size(3).build().unwrap())
        .push(builder(24, 24).build().unwrap())
}

fn norm<T: Element>() -> Sequential<T> {
    Sequential::new().push(BatchNorm2d::builder(24).build().unwrap())
}

/// Outputs of the chain and of each of its layers, on every level, with this scale, shift and mean in every third
/// channel.
fn with_dead_channels<T: Element>(mut net: Sequential<T>, scale: f64, shift: f64, mean: f64) -> Vec<f32> {
    train(&mut net);
    net.visit_mut("", &mut |name, parameter| {
        let value = match parameter.role() {
            Role::NormScale => scale,
            Role::NormShift => shift,
            Role::RunningStatistic if name.ends_with("mean") => mean,
            _ => return,
        };
        parameter.as_mut_slice().iter_mut().step_by(3).for_each(|old| *old = T::from_f64(value));
    });
    let images = images([1, 9, 8, 24]);
    let mut found = Vec::new();
    for layer in net.iter().map(|(_, layer)| layer).chain([&net as _]) {
        for level in levels() {
            found.extend(run(&mut layer.compile(images.shape(), &on(level, 1)).unwrap(), images.view()));
        }
    }
    found
}

#[track_caller]
fn assert_dead_is_zero<T: Element>(net: impl Fn() -> Sequential<T>) {
    // Only where nothing else is added can such a product be seen.
    for shift in [0.0, 0.5] {
        let [dead, zero] = [DEAD, 0.0].map(|scale| with_dead_channels(net(), scale, shift, 0.0));
        let different = dead.iter().zip(&zero).find(|(dead, zero)| dead.to_bits() != zero.to_bits());
        assert_eq!(different, None, "shift {shift}: with the scale, and with zero");
    }
    let small = with_dead_channels(net(), 1e-30, 0.0, 0.0);
    assert_ne!(small, with_dead_channels(net(), 0.0, 0.0, 0.0), "a scale of the like that is not subnormal shows");
}

#[test]
fn dead_channels_compile_to_zeros_rather_than_subnormals() {
    assert_dead_is_zero(convolutions::<f32>);
}

#[test]
fn dead_channels_of_double_precision_compile_to_zeros_rather_than_subnormals() {
    assert_dead_is_zero(convolutions::<f64>);
}

#[test]
fn dead_channels_of_a_normalisation_alone_compile_to_zeros_rather_than_subnormals() {
    assert_dead_is_zero(norm::<f32>);
    assert_dead_is_zero(norm::<f64>);
}

/// The mean times the scale is all that is added, and subnormal too.
#[test]
fn dead_channels_have_no_subnormal_bias() {
    for found in [
        with_dead_channels(convolutions::<f32>(), DEAD, 0.0, 0.75),
        with_dead_channels(convolutions::<f64>(), DEAD, 0.0, 0.75),
        with_dead_channels(norm::<f32>(), DEAD, 0.0, 0.75),
    ] {
        assert_eq!(found.into_iter().find(|value| value.is_subnormal()), None);
    }
}

#[test]
fn normalisations_and_clamps_after_convolutions_cost_no_step() {
    let mut net = Sequential::<f32>::new()
        .push(Conv2d::builder(8, 24).build().unwrap())
        .push(BatchNorm2d::builder(24).build().unwrap())
        .push(Relu6)
        .push(DepthwiseConv2d::builder(24).build().unwrap())
        .push(BatchNorm2d::builder(24).build().unwrap())
        .push(Relu)
        .push(Conv2d::builder(24, 12).build().unwrap())
        .push(BatchNorm2d::builder(12).build().unwrap());
    train(&mut net);
    let shape = [1, 23, 20, 8];
    let plan = net.compile(shape, &CompileOptions::new()).unwrap().plan();
    // The block, and the copy of its output into the user's order.
    assert_eq!(plan.rows.len(), 2, "{plan}");
    assert_equals_forward(&net, shape, "block of plain layers");
}

/// A shortcut that is computed after the main branch.
#[derive(Clone, Debug)]
struct LateShortcut([ConvBnRelu<f32>; 4]);

impl Layer<f32> for LateShortcut {
    fn kind(&self) -> &'static str {
        "LateShortcut"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.0[3].output_shape(input)
    }

    fn forward_with(&self, input: &Tensor<f32>, runtime: &Runtime) -> Result<Tensor<f32>> {
        let [expand, depthwise, project, shortcut] = &self.0;
        let expanded = expand.forward_with(input, runtime)?;
        let main = project.forward_with(&depthwise.forward_with(&expanded, runtime)?, runtime)?;
        mobilenet::ops::add(main, &shortcut.forward_with(input, runtime)?)
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let [expand, depthwise, project, shortcut] = &self.0;
        let expanded = expand.lower(graph, name, input)?;
        let filtered = depthwise.lower(graph, name, expanded)?;
        let residual = shortcut.lower(graph, name, input)?;
        let weights = || {
            let (weight, bias) = project.folded();
            FilterWeights { weight: weight.into(), scale: None, bias: bias.into() }
        };
        let filter = Filter {
            window: *project.window(),
            channels: [24, 12],
            groups: 1,
            weights: Box::new(weights),
            clamp: project.activation().clamp(),
        };
        graph.convolution(name, filtered, filter, Some(residual))
    }
}

#[test]
fn a_shortcut_after_the_main_branch_is_added() {
    let part = |inputs, outputs| ConvBnRelu::<f32>::builder(inputs, outputs).activation(Activation::None);
    let parts = [part(8, 24), part(24, 24).groups(24).kernel_size(3), part(24, 12), part(8, 12)];
    let layer = LateShortcut(parts.map(|builder| builder.build().unwrap()));
    for shape in [[1, 23, 20, 8], [1, 7, 7, 8]] {
        assert_equals_forward(&layer, shape, "late shortcut");
    }
}

/// Says that it has outputs of this shape.
#[derive(Clone, Debug)]
struct Claims(Shape);

impl Layer<f32> for Claims {
    fn kind(&self) -> &'static str {
        "Claims"
    }

    fn output_shape(&self, _: Shape) -> Result<Shape> {
        Ok(self.0)
    }

    fn forward_with(&self, input: &Tensor<f32>, _: &Runtime) -> Result<Tensor<f32>> {
        Ok(input.clone())
    }
}

#[test]
fn what_a_layer_of_the_users_claims_is_checked() {
    for (shape, found) in [([1, 0, 3, 3], "[0, 3, 3]"), ([1, 1 << 31, 1 << 31, 8], "[1, 2147483648, 2147483648, 8]")] {
        let net = Sequential::new().push(Claims(shape)).push(Flatten);
        assert_says(net.compile([1, 3, 3, 3], &CompileOptions::new()), &[found, "expected"]);
    }
}
