//! Layers and networks against PyTorch, TensorFlow, timm, transformers and Keras: see `tests/golden/README.md`.

use mobilenet::engine::CompileOptions;
use mobilenet::kernels::reference::Pooling;
use mobilenet::layers::{
    Activation, BatchNorm2d, Conv2d, ConvBnRelu, DepthwiseConv2d, DepthwiseSeparable, GlobalAveragePool, GlobalMaxPool,
    Initializer, InvertedResidual, Layer, Linear, Relu, Relu6, Softmax,
};
use mobilenet::models::Network;
use mobilenet::source::BatchNormConvention;
use mobilenet::{
    Architecture, Element, MobileNetV1, MobileNetV2, Padding, Runtime, SimdLevel, Tensor, WeightSource, Window, ops,
};
use serde_json::Value;

use crate::common::levels;
use crate::golden_files::{fill, json, number, shape, tensors};

fn cases(name: &str) -> Vec<Value> {
    json(name)["cases"].as_array().unwrap().clone()
}

fn input<T: Element>(case: &Value) -> Tensor<T> {
    let name = format!("{}.input", case["name"].as_str().unwrap());
    crate::golden_files::input(&name, shape(&case["input"]), case["input_scale"].as_f64().unwrap_or(1.0))
}

fn padding(case: &Value) -> Padding {
    match &case["padding"] {
        Value::String(_) => Padding::Same,
        sides => {
            let [top, bottom, left, right] = shape(sides);
            Padding::Explicit { top, bottom, left, right }
        }
    }
}

/// The layer of a case, except for windowed pooling, which is an operation alone.
fn layer<T: Element>(case: &Value) -> Option<Box<dyn Layer<T>>> {
    let get = |name: &str| number(&case[name]);
    let batch_norm = || BatchNormConvention {
        epsilon: case["eps"].as_f64().unwrap(),
        ..WeightSource::Torchvision.batch_norm(Architecture::MobileNetV2)
    };
    let has_bias = case["bias"] == true;
    Some(match case["op"].as_str().unwrap() {
        "conv2d" => {
            let builder = Conv2d::builder(get("in_channels"), get("out_channels")).kernel_size(get("kernel"));
            let builder = builder.stride(get("stride")).dilation(get("dilation")).groups(get("groups"));
            let builder = builder.padding(padding(case));
            Box::new(if has_bias { builder } else { builder.without_bias() }.build().unwrap())
        }
        "depthwise_conv2d" => {
            let builder = DepthwiseConv2d::builder(get("channels")).channel_multiplier(get("multiplier"));
            let builder = builder.kernel_size(get("kernel")).stride(get("stride")).dilation(get("dilation"));
            let builder = builder.padding(padding(case));
            Box::new(if has_bias { builder } else { builder.without_bias() }.build().unwrap())
        }
        "linear" => {
            let builder = Linear::builder(get("in_features"), get("out_features"));
            Box::new(if has_bias { builder } else { builder.without_bias() }.build().unwrap())
        }
        "batch_norm" => {
            Box::new(BatchNorm2d::builder(shape(&case["input"])[3]).convention(batch_norm()).build().unwrap())
        }
        "conv_bn_relu" => {
            let builder = ConvBnRelu::builder(get("in_channels"), get("out_channels")).groups(get("groups"));
            let builder = builder.kernel_size(get("kernel")).stride(get("stride")).padding(padding(case));
            let activation = match case["activation"].as_str().unwrap() {
                "relu6" => Activation::Relu6,
                "relu" => Activation::Relu,
                _ => Activation::None,
            };
            Box::new(builder.activation(activation).batch_norm(batch_norm()).build().unwrap())
        }
        "depthwise_separable" => {
            let builder = DepthwiseSeparable::builder(get("in_channels"), get("out_channels"));
            let builder = builder.kernel_size(get("kernel")).stride(get("stride")).padding(padding(case));
            Box::new(builder.batch_norm(batch_norm()).build().unwrap())
        }
        "inverted_residual" => {
            let builder = InvertedResidual::builder(get("in_channels"), get("out_channels"));
            let builder = builder.expand_ratio(get("expand_ratio")).batch_norm(batch_norm());
            let builder = builder.kernel_size(get("kernel")).stride(get("stride")).padding(padding(case));
            let block = builder.build().unwrap();
            assert_eq!(case["residual"], block.has_residual());
            Box::new(block)
        }
        "relu" => Box::new(Relu),
        "relu6" => Box::new(Relu6),
        "softmax" => Box::new(Softmax),
        "global_avg_pool" => Box::new(GlobalAveragePool),
        "global_max_pool" => Box::new(GlobalMaxPool),
        _ => return None,
    })
}

/// What the compiled layer computes on a level.
fn compiled(layer: &dyn Layer<f32>, input: &Tensor<f32>, level: SimdLevel) -> Vec<f32> {
    let mut engine = layer.compile(input.shape(), &CompileOptions::new().level(level)).unwrap();
    let mut output = vec![f32::NAN; engine.output_len()];
    engine.run(input.view(), &mut output).unwrap();
    output
}

fn assert_close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{name}[{index}]: {found} instead of {expected}");
    }
}

#[test]
fn layers_equal_pytorch_and_tensorflow() {
    let expected = tensors("layers.safetensors");
    let cases = cases("layers.json");
    assert!(cases.len() > 100);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let output = if let Some(mut layer) = layer::<f64>(case) {
            let prefix = if case["op"] == "batch_norm" { format!("{name}.bn") } else { name.into() };
            fill(&mut *layer, &prefix);
            assert_eq!(layer.output_shape(shape(&case["input"])).unwrap(), shape(&case["output"]), "{name}");
            layer.forward(&input(case)).unwrap()
        } else {
            assert_eq!(case["op"], "avg_pool2d");
            let pooling = if case["count_include_pad"] == true { Pooling::AveragePadded } else { Pooling::Average };
            let window = Window::new(number(&case["kernel"]), padding(case)).stride(number(&case["stride"]));
            ops::pool2d(&input(case), &window, pooling, &Runtime::new()).unwrap()
        };
        assert_eq!(output.shape(), shape(&case["output"]), "{name}");
        assert_close(name, output.as_slice(), &expected[&format!("{name}.output")], 1e-10);
    }
}

/// The bound of a sum of `k` products in single precision, `(k + 8) * eps * sum of |x * w|`: the magnitudes come from
/// the same layer over the magnitudes of its input and parameters. Eight more roundings are those of the normalisation.
#[test]
fn single_precision_layers_equal_pytorch_and_tensorflow_to_their_error_bound_on_every_simd_level() {
    let expected = tensors("layers.safetensors");
    for case in &cases("layers.json") {
        let name = case["name"].as_str().unwrap();
        let (Some(mut single), Some(mut double)) = (layer::<f32>(case), layer::<f64>(case)) else { continue };
        let prefix = if case["op"] == "batch_norm" { format!("{name}.bn") } else { name.into() };
        fill(&mut *single, &prefix);
        fill(&mut *double, &prefix);
        double.visit_mut("", &mut |name, parameter| {
            // The mean is subtracted.
            let sign = if name.ends_with("mean") { -1.0 } else { 1.0 };
            parameter.as_mut_slice().iter_mut().for_each(|value| *value = sign * value.abs());
        });
        let [_, h, w, _] = shape(&case["input"]);
        let mut magnitudes = input::<f64>(case);
        magnitudes.as_mut_slice().iter_mut().for_each(|value| *value = value.abs());
        let bound = double.forward(&magnitudes).unwrap();
        let outputs = bound.as_slice().len() as f64;
        let terms = double.multiply_adds(magnitudes.shape()).unwrap() as f64 / outputs;
        let terms = if case["op"] == "global_avg_pool" { (h * w) as f64 } else { terms };
        for level in levels() {
            let runtime = Runtime::new().level(level).unwrap();
            let forward = single.forward_with(&input(case), &runtime).unwrap().into_vec();
            let expected = &expected[&format!("{name}.output")];
            for (form, output) in [("forward", forward), ("engine", compiled(&*single, &input(case), level))] {
                assert_eq!(output.len(), expected.len(), "{name}");
                for ((found, expected), bound) in output.iter().zip(expected).zip(bound.as_slice()) {
                    let bound = if case["op"] == "softmax" { 1.0 } else { *bound };
                    let tolerance = (terms + 8.0) * f64::from(f32::EPSILON) * bound;
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(
                        difference <= tolerance,
                        "{name} {level} {form}: {found} instead of {expected}, tolerance {tolerance}"
                    );
                }
            }
        }
    }
}

fn network<T: Element>(case: &Value) -> Network<T> {
    let (alpha, classes) = (case["alpha"].as_f64().unwrap(), number(&case["classes"]));
    let (source, architecture) = case["source"].as_str().unwrap().split_once('_').unwrap();
    let source = if source == "hf" { WeightSource::HuggingFace } else { source.parse().unwrap() };
    let zeros = Initializer::Zeros;
    let mut network: Network<T> = if architecture == "v1" {
        MobileNetV1::builder().alpha(alpha).source(source).classes(classes).initializer(zeros).build().unwrap().into()
    } else {
        MobileNetV2::builder().alpha(alpha).source(source).classes(classes).initializer(zeros).build().unwrap().into()
    };
    fill(&mut network, "");
    network
}

/// Mean, mean of magnitudes and four elements.
fn digest(map: &[f64]) -> Vec<f64> {
    let mean = |values: &dyn Fn(f64) -> f64| map.iter().map(|&value| values(value)).sum::<f64>() / map.len() as f64;
    let samples = (0..4).map(|i| map[(map.len() - 1) * i / 3]);
    [mean(&|value| value), mean(&f64::abs)].into_iter().chain(samples).collect()
}

#[test]
fn networks_and_each_of_their_blocks_equal_every_framework() {
    let expected = tensors("models.safetensors");
    for case in &cases("models.json") {
        let name = case["name"].as_str().unwrap();
        let net = network::<f64>(case);
        let digests = &expected[&format!("{name}.digest")];
        let shapes = case["blocks"].as_array().unwrap();
        assert_eq!(net.features().len(), shapes.len(), "{name}");
        let mut map = input(case);
        for (index, ((_, block), expected)) in net.features().iter().zip(digests.chunks_exact(6)).enumerate() {
            map = block.forward(&map).unwrap();
            assert_eq!(map.shape(), shape(&shapes[index]), "{name} block {index}");
            assert_close(&format!("{name} block {index}"), &digest(map.as_slice()), expected, 1e-10);
        }
        let logits = net.head().forward(&map).unwrap();
        assert_close(name, logits.as_slice(), &expected[&format!("{name}.logits")], 1e-10);
    }
}

/// Rounding grows along 50 layers: 3e-5 of the logits' size was seen.
#[test]
fn single_precision_networks_equal_every_framework() {
    let expected = tensors("models.safetensors");
    for case in &cases("models.json") {
        let name = case["name"].as_str().unwrap();
        let expected = &expected[&format!("{name}.logits")];
        let net = network::<f32>(case);
        let greatest = expected.iter().fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
        let exact = |logits: Vec<f32>| logits.into_iter().map(f64::from).collect::<Vec<f64>>();
        let forward = exact(net.forward(&input(case)).unwrap().into_vec());
        assert_close(&format!("{name} forward"), &forward, expected, 2e-4 * greatest);
        for level in levels() {
            let engine = exact(compiled(&net, &input(case), level));
            assert_close(&format!("{name} {level}"), &engine, expected, 2e-4 * greatest);
            assert_close(&format!("{name} {level} and forward"), &engine, &forward, 1e-4 * greatest);
        }
    }
}
