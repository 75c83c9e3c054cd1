//! Layers against the math they are made of, and against what a user may get wrong.

use mobilenet::layers::{
    Activation, BatchNorm2d, Conv2d, ConvBnRelu, ConvBnReluBuilder, DepthwiseConv2d, DepthwiseSeparable, Dropout,
    Flatten, GlobalAveragePool, GlobalMaxPool, Initializer, InvertedResidual, Layer, Linear, Parameter, Relu, Relu6,
    Role, Sequential, Softmax, StateDict, Summary,
};
use mobilenet::{Element, Error, Padding, Runtime, Tensor, ops};

/// Deterministic values in `[-1, 1]`, different at every call site's `phase`.
fn wave(index: usize, phase: usize) -> f64 {
    ((index * 7919 + phase * 104_729) % 2003) as f64 / 1001.0 - 1.0
}

fn images<T: Element>(shape: [usize; 4]) -> Tensor<T> {
    let mut index = 0;
    Tensor::from_fn(shape, |_| {
        index += 1;
        T::from_f64(3.0 * wave(index, 1))
    })
    .unwrap()
}

/// Gives every parameter values as training might: variances positive, the rest around zero.
fn train<T: Element>(layer: &mut dyn Layer<T>) {
    let mut phase = 2;
    layer.visit_mut("", &mut |name, parameter| {
        phase += 1;
        for (index, value) in parameter.as_mut_slice().iter_mut().enumerate() {
            let wave = wave(index, phase);
            *value = T::from_f64(if name.ends_with("running_var") { 1.5 + wave } else { wave });
        }
    });
}

fn close(left: &Tensor<f64>, right: &Tensor<f64>) {
    assert_eq!(left.shape(), right.shape());
    let pairs = left.as_slice().iter().zip(right.as_slice());
    let greatest = pairs.fold(0.0_f64, |greatest, (left, right)| greatest.max((left - right).abs()));
    assert!(greatest < 1e-11, "largest difference {greatest}");
}

fn refused<L: std::fmt::Debug>(result: Result<L, Error>) {
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
}

/// One of each form of convolution.
fn forms() -> [ConvBnReluBuilder<f64>; 7] {
    [
        ConvBnRelu::builder(6, 10),
        ConvBnRelu::builder(6, 10).stride(2),
        ConvBnRelu::builder(6, 10).groups(2),
        ConvBnRelu::builder(6, 10).kernel_size(3).stride(2).padding(Padding::Same),
        ConvBnRelu::builder(6, 9).kernel_size(3).groups(3).dilation(2),
        ConvBnRelu::builder(6, 6).kernel_size(5).groups(6).stride(2),
        ConvBnRelu::builder(6, 12).kernel_size(3).groups(6).activation(Activation::None),
    ]
}

#[test]
fn conv_bn_relu_equals_convolution_then_normalisation_then_activation() {
    let input = images([2, 7, 5, 6]);
    for builder in forms() {
        let mut layer = builder.build().unwrap();
        train(&mut layer);
        let (c, window, weight) = (layer.norm().channels(), *layer.window(), layer.weight());
        let grouped: Vec<usize> = match weight.role() {
            Role::DepthwiseWeight => vec![window.kernel[0], window.kernel[1], 1, c],
            _ => weight.shape().into(),
        };
        let weight = weight.value().view().into_shape_with_order(grouped).unwrap().into_dimensionality().unwrap();
        let plain = ops::conv2d(&input, weight, &window, ops::Epilogue::default(), &Runtime::new()).unwrap();
        let expected = ops::clamp(layer.norm().forward(&plain).unwrap(), layer.activation().clamp());
        let output = layer.forward(&input).unwrap();
        close(&output, &expected);
        assert_eq!(layer.output_shape(input.shape()).unwrap(), output.shape());
        let taps = layer.weight().len() / c;
        assert_eq!(layer.multiply_adds(input.shape()).unwrap(), (output.as_slice().len() * taps) as u64);
    }
}

#[test]
fn folded_weights_are_never_subnormal() {
    let mut layer = ConvBnRelu::<f32>::builder(4, 8).build().unwrap();
    train(&mut layer);
    layer.visit_mut("", &mut |name, parameter| {
        if name == "bn.weight" {
            parameter.as_mut_slice()[3] = 1e-38;
        }
    });
    let (weight, _) = layer.folded();
    assert!(weight.iter().all(|value| *value == 0.0 || value.is_normal()));
    assert!(weight.iter().skip(3).step_by(8).any(|&value| value == 0.0));
    assert!(weight.iter().skip(4).step_by(8).all(|&value| value != 0.0));
}

#[test]
fn batch_norm_equals_its_formula() {
    let mut norm = BatchNorm2d::<f64>::builder(3).epsilon(1e-3).build().unwrap();
    train(&mut norm);
    let state = StateDict::of(&norm, None);
    let [weight, bias, mean, var] =
        ["weight", "bias", "running_mean", "running_var"].map(|name| state.get(name).unwrap().clone());
    let input = images([1, 2, 2, 3]);
    let expected = Tensor::from_fn(input.shape(), |[n, h, w, c]| {
        (input.view()[[n, h, w, c]] - mean[[c]]) / (var[[c]] + 1e-3).sqrt() * weight[[c]] + bias[[c]]
    });
    close(&norm.forward(&input).unwrap(), &expected.unwrap());
}

#[test]
fn inverted_residual_adds_its_input_exactly_when_stride_is_one_and_widths_match() {
    for (inputs, outputs, stride, expected) in
        [(8, 8, 1, true), (8, 8, 2, false), (8, 16, 1, false), (16, 8, 1, false), (8, 16, 2, false)]
    {
        for ratio in [1, 2, 6] {
            let builder = InvertedResidual::<f64>::builder(inputs, outputs).stride(stride).expand_ratio(ratio);
            let mut block = builder.kernel_size(5).build().unwrap();
            train(&mut block);
            assert_eq!(block.has_residual(), expected);
            assert_eq!(block.expand().is_some(), ratio > 1);
            let input = images([2, 7, 6, inputs]);
            let mut plain = input.clone();
            for (_, part) in block.children() {
                plain = part.forward(&plain).unwrap();
            }
            let expected = if expected { ops::add(plain, &input).unwrap() } else { plain };
            close(&block.forward(&input).unwrap(), &expected);
            assert_eq!(block.output_shape(input.shape()).unwrap(), expected.shape());
            assert!(expected.as_slice().iter().any(|&value| value < 0.0), "the projection is linear");
        }
    }
}

#[test]
fn hidden_channels_replace_the_ratio() {
    let builder = || InvertedResidual::<f32>::builder(8, 8).expand_ratio(6);
    let block = builder().hidden_channels(20).build().unwrap();
    assert_eq!(block.depthwise().weight().shape(), [3, 3, 20, 1]);
    assert!(builder().hidden_channels(8).build().unwrap().expand().is_none());
    refused(builder().hidden_channels(0).build());
}

#[test]
fn depthwise_separable_equals_its_parts() {
    let mut block = DepthwiseSeparable::<f64>::builder(6, 4).channel_multiplier(2).stride(2).build().unwrap();
    train(&mut block);
    let input = images([1, 7, 8, 6]);
    let middle = block.depthwise().forward(&input).unwrap();
    assert_eq!(middle.shape(), [1, 4, 4, 12]);
    close(&block.forward(&input).unwrap(), &block.pointwise().forward(&middle).unwrap());
}

#[test]
fn depthwise_conv_equals_grouped_conv_with_bias() {
    let mut depthwise = DepthwiseConv2d::<f64>::builder(4).channel_multiplier(3).build().unwrap();
    train(&mut depthwise);
    let mut grouped = Conv2d::builder(4, 12).groups(4).kernel_size(3).build().unwrap();
    StateDict::of(&depthwise, None).load_into(&mut grouped, mobilenet::LoadMode::Strict).unwrap();
    let input = images([1, 4, 5, 4]);
    close(&depthwise.forward(&input).unwrap(), &grouped.forward(&input).unwrap());
    let bias = depthwise.as_conv2d().bias().map(Parameter::as_slice).unwrap();
    let weight = Conv2d::<f64>::builder(4, 12).groups(4).kernel_size(3).without_bias();
    let mut unbiased = weight.build().unwrap();
    StateDict::of(&depthwise, None).load_into(&mut unbiased, mobilenet::LoadMode::Partial).unwrap();
    let without = unbiased.forward(&input).unwrap();
    let expected = Tensor::from_fn(without.shape(), |[n, h, w, c]| without.view()[[n, h, w, c]] + bias[c]).unwrap();
    close(&depthwise.forward(&input).unwrap(), &expected);
}

#[test]
fn linear_reads_each_image_as_one_row() {
    let mut linear = Linear::<f64>::builder(12, 5).build().unwrap();
    train(&mut linear);
    let input = images([3, 2, 2, 3]);
    let (weight, bias) = (linear.weight().as_slice(), linear.bias().unwrap().as_slice());
    let expected = Tensor::from_fn([3, 1, 1, 5], |[n, _, _, o]| {
        bias[o] + (0..12).map(|i| input.rows()[[n, i]] * weight[i * 5 + o]).sum::<f64>()
    });
    close(&linear.forward(&input).unwrap(), &expected.unwrap());
    let flat = Flatten.forward(&input).unwrap();
    assert_eq!(flat.shape(), [3, 1, 1, 12]);
    close(&linear.forward(&flat).unwrap(), &linear.forward(&input).unwrap());
}

/// Every kind of layer, for `[N, H, W, 6]` inputs.
fn every_layer() -> Vec<Box<dyn Layer<f64>>> {
    let mut layers: Vec<Box<dyn Layer<f64>>> = vec![
        Box::new(Conv2d::builder(6, 4).kernel_size(2).stride(3).build().unwrap()),
        Box::new(DepthwiseConv2d::builder(6).channel_multiplier(2).dilation(2).build().unwrap()),
        Box::new(BatchNorm2d::builder(6).build().unwrap()),
        Box::new(DepthwiseSeparable::builder(6, 3).build().unwrap()),
        Box::new(InvertedResidual::builder(6, 6).build().unwrap()),
        Box::new(Linear::builder(5 * 7 * 6, 3).without_bias().build().unwrap()),
        Box::new(GlobalAveragePool),
        Box::new(GlobalMaxPool),
        Box::new(Dropout::new(0.5).unwrap()),
        Box::new(Flatten),
        Box::new(Relu),
        Box::new(Relu6),
        Box::new(Softmax),
        Box::new(Sequential::new()),
        Box::new(Sequential::new().push(ConvBnRelu::builder(6, 3).build().unwrap()).push(GlobalMaxPool)),
    ];
    layers.extend(forms().map(|builder| Box::new(builder.build().unwrap()) as Box<dyn Layer<f64>>));
    layers
}

#[test]
fn output_shape_equals_forwards_for_every_layer() {
    for layer in every_layer() {
        for shape in [[2, 5, 7, 6], [0, 5, 7, 6]] {
            let output = layer.forward(&images(shape)).unwrap();
            assert_eq!(layer.output_shape(shape).unwrap(), output.shape(), "{layer:?}");
            assert_eq!(Summary::of(&*layer, shape).unwrap().multiply_adds(), layer.multiply_adds(shape).unwrap());
        }
    }
}

#[test]
fn layers_and_their_shapes_refuse_the_same_inputs() {
    for layer in every_layer() {
        for shape in [[1, 5, 7, 5], [1, 5, 7, 0], [1, 0, 7, 6], [1, 5, 0, 6], [1, 1, 1, 6], [0, 0, 0, 0]] {
            let output = layer.forward(&images(shape)).map(|output| output.shape()).ok();
            assert_eq!(layer.output_shape(shape).ok(), output, "{} {shape:?}", layer.kind());
        }
        // Absurd sizes are counted or refused, without a panic.
        let _ = (layer.output_shape([usize::MAX; 4]), layer.multiply_adds([usize::MAX, 1 << 23, 1 << 23, 6]));
    }
}

#[test]
fn absurd_shapes_and_windows_are_errors() {
    let absurd = Tensor::<f32>::zeros([0, usize::MAX, 2, 2]);
    assert!(matches!(absurd, Err(Error::Shape { .. })), "{absurd:?}");
    let input = Tensor::<f32>::zeros([1, 8, 8, 16]).unwrap();
    for builder in [ConvBnRelu::<f32>::builder(16, 4), ConvBnRelu::builder(16, 16).groups(16)] {
        let far = builder.kernel_size(3).dilation(32_768).padding(Padding::Symmetric(32_768)).build().unwrap();
        refused(far.forward(&input));
    }
}

#[test]
fn kernels_are_named_by_what_they_compute() {
    let named = |builder: ConvBnReluBuilder<f32>| builder.build().unwrap().kernel().unwrap();
    assert_eq!(named(ConvBnRelu::builder(3, 8).kernel_size(3).stride(2)), "f32-conv3x3s2-relu6");
    assert_eq!(named(ConvBnRelu::builder(8, 8).groups(2).activation(Activation::Relu)), "f32-conv1x1s1g2-relu");
    assert_eq!(named(ConvBnRelu::builder(8, 8).groups(8).kernel_size(5).dilation(2)), "f32-dw5x5s1d2-relu6");
    assert_eq!(named(ConvBnRelu::builder(8, 16).activation(Activation::None)), "f32-pw");
    let linear = Linear::<f64>::builder(4, 2).build().unwrap();
    assert_eq!(linear.kernel().as_deref(), Some("f64-linear"));
    assert_eq!(Layer::<f32>::kernel(&Relu), None);
}

#[test]
fn empty_inputs_leave_the_bias() {
    let bias = [1.0_f32, 2.0];
    let epilogue = mobilenet::ops::Epilogue { bias: Some(&bias), ..Default::default() };
    let weight = mobilenet::ndarray::Array2::zeros([0, 2]);
    for images in [1, 3, 4, 5] {
        let input = Tensor::zeros([images, 1, 1, 0]).unwrap();
        let output = mobilenet::ops::pointwise_conv2d(&input, weight.view(), epilogue, &Runtime::new()).unwrap();
        assert_eq!(output.as_slice(), bias.repeat(images));
    }
}

#[test]
fn functions_without_parameters_do_what_they_say() {
    let input = Tensor::from_slice([1, 1, 2, 2], &[-1.0, 8.0, 3.0, f64::NAN]).unwrap();
    let bits = |layer: &dyn Layer<f64>| layer.forward(&input).unwrap().into_vec().iter().map(|v| v.to_bits()).collect();
    let expect = |values: [f64; 4]| -> Vec<u64> { values.iter().map(|value| value.to_bits()).collect() };
    let output: Vec<u64> = bits(&Relu);
    assert_eq!(output, expect([0.0, 8.0, 3.0, f64::NAN]));
    let output: Vec<u64> = bits(&Relu6);
    assert_eq!(output, expect([0.0, 6.0, 3.0, f64::NAN]));
    let output: Vec<u64> = bits(&Dropout::new(0.9).unwrap());
    assert_eq!(output, expect([-1.0, 8.0, 3.0, f64::NAN]));
    assert_eq!(GlobalAveragePool.forward(&input).unwrap().as_slice()[0].to_bits(), 1.0_f64.to_bits());
    assert_eq!(GlobalMaxPool.forward(&input).unwrap().as_slice()[0].to_bits(), 3.0_f64.to_bits());
}

#[test]
fn builders_refuse_zero_and_absurd_sizes() {
    const HUGE: usize = usize::MAX;
    for size in [0, HUGE] {
        refused(Conv2d::<f32>::builder(size, 1).build());
        refused(Conv2d::<f32>::builder(1, size).build());
        refused(Conv2d::<f32>::builder(4, 4).groups(size).build());
        refused(Conv2d::<f32>::builder(4, 4).kernel_size(size).build());
        refused(Conv2d::<f32>::builder(4, 4).stride(size).build());
        refused(Conv2d::<f32>::builder(4, 4).dilation(size).build());
        refused(DepthwiseConv2d::<f32>::builder(size).build());
        refused(DepthwiseConv2d::<f32>::builder(2).channel_multiplier(size).build());
        refused(ConvBnRelu::<f32>::builder(size, 1).build());
        refused(ConvBnRelu::<f32>::builder(4, 4).kernel_size(size).build());
        refused(BatchNorm2d::<f32>::builder(size).build());
        refused(DepthwiseSeparable::<f32>::builder(size, 8).build());
        refused(DepthwiseSeparable::<f32>::builder(8, size).build());
        refused(DepthwiseSeparable::<f32>::builder(8, 8).channel_multiplier(size).build());
        refused(InvertedResidual::<f32>::builder(size, 8).build());
        refused(InvertedResidual::<f32>::builder(8, size).build());
        refused(InvertedResidual::<f32>::builder(8, 8).expand_ratio(size).build());
        refused(InvertedResidual::<f32>::builder(8, 8).kernel_size(size).build());
        refused(InvertedResidual::<f32>::builder(8, 8).dilation(size).build());
        refused(Linear::<f32>::builder(size, 1).build());
        refused(Linear::<f32>::builder(1, size).build());
    }
    // 65,536 channels are allowed, a matrix of 65,536 squared is not.
    refused(Conv2d::<f32>::builder(1 << 16, 1 << 16).build());
}

#[test]
fn builders_refuse_what_does_not_fit_together() {
    refused(Conv2d::<f32>::builder(6, 8).groups(4).build());
    refused(Conv2d::<f32>::builder(8, 6).groups(4).build());
    refused(ConvBnRelu::<f32>::builder(8, 12).groups(8).build());
    refused(InvertedResidual::<f32>::builder(8, 8).kernel_size(4).build());
    refused(DepthwiseSeparable::<f32>::builder(8, 8).kernel_size(2).build());
    refused(InvertedResidual::<f32>::builder(8, 8).padding(Padding::VALID).build());
    assert!(InvertedResidual::<f32>::builder(8, 16).padding(Padding::VALID).build().is_ok());
    for epsilon in [0.0, -1e-5, f64::NAN, f64::INFINITY] {
        refused(BatchNorm2d::<f32>::builder(8).epsilon(epsilon).build());
    }
    for momentum in [-0.1, 1.1, f64::NAN] {
        refused(BatchNorm2d::<f32>::builder(8).momentum(momentum).build());
    }
    for rate in [-0.1, 1.0, f64::NAN] {
        refused(Dropout::new(rate));
    }
}

#[test]
fn sequential_names_its_layers_by_place_or_as_told() {
    let net = Sequential::<f32>::new()
        .push(ConvBnRelu::builder(3, 4).build().unwrap())
        .push_named("pool", GlobalAveragePool)
        .unwrap()
        .push_named("head", Linear::builder(4, 2).build().unwrap())
        .unwrap();
    let mut names = Vec::new();
    net.visit("net", &mut |name, _| names.push(name));
    assert_eq!(names[0], "net.0.weight");
    assert_eq!(names[5..], ["net.head.weight", "net.head.bias"]);
    assert_eq!((net.len(), net.is_empty(), net[1].kind()), (3, false, "GlobalAveragePool"));
    assert!(net.get(3).is_none());
    for name in ["", "7", "head"] {
        refused(net.clone().push_named(name, GlobalMaxPool));
    }
}

#[test]
fn clone_shares_nothing() {
    let net = Sequential::<f32>::new().push(Linear::builder(4, 2).build().unwrap());
    let mut other = net.clone();
    train(&mut other);
    assert_ne!(StateDict::of(&net, None), StateDict::of(&other, None));
}

#[test]
fn single_precision_weights_are_the_rounded_double_ones() {
    let block =
        |seed| InvertedResidual::<f64>::builder(8, 8).initializer(Initializer::Keras).seed(seed).build().unwrap();
    let single = InvertedResidual::<f32>::builder(8, 8).initializer(Initializer::Keras).seed(5).build().unwrap();
    let (single, double) = (StateDict::of(&single, None), StateDict::of(&block(5), None));
    for (name, array) in single.iter() {
        assert_eq!(array, &double.get(name).unwrap().mapv(<f32 as Element>::from_f64), "{name}");
    }
    assert_ne!(double, StateDict::of(&block(6), None));
}

#[cfg(feature = "serde")]
#[test]
fn saved_layer_builders_rebuild_the_same_layer() {
    let builder = InvertedResidual::<f32>::builder(8, 8).expand_ratio(3).padding(Padding::Same).seed(3);
    let again = serde_json::from_str(&serde_json::to_string(&builder).unwrap()).unwrap();
    assert_eq!(builder, again);
    assert_eq!(StateDict::of(&builder.build().unwrap(), None), StateDict::of(&again.build().unwrap(), None));
}
