//! Gradients of every layer and block against finite differences, in `f64`, at odd sizes. Whole networks have too many
//! clamps for differences that must not step over a border; `train_golden.rs` has them.

use mobilenet::check::check_gradients;
use mobilenet::layers::{
    Activation, BatchNorm2d, Conv2d, ConvBnRelu, DepthwiseConv2d, DepthwiseSeparable, Dropout, Flatten,
    GlobalAveragePool, GlobalMaxPool, Gradient, InvertedResidual, Layer, Linear, Relu, Relu6, Sequential, Signal,
    Softmax, Tape,
};
use mobilenet::{Error, Padding, Result, Runtime, Shape, Tensor};

/// The bar of every comparison.
const RELATIVE: f64 = 1e-6;

fn input(shape: Shape) -> Tensor<f64> {
    let count: usize = shape.iter().product();
    // A quadratic sequence modulo a prime: values in -3 to 3 that hit no border of a clamp.
    let values = (0..count as u64).map(|i| ((i * i * 7919 + i * 104_729 + 13) % 10_007) as f64 / 1667.83 - 3.0);
    Tensor::from_shape_vec(shape, values.collect()).unwrap()
}

#[track_caller]
fn check(layer: impl Layer<f64> + 'static, shape: Shape) {
    check_frozen(Box::new(layer), shape, &[]);
}

#[track_caller]
fn check_frozen(mut layer: Box<dyn Layer<f64>>, shape: Shape, frozen: &[&str]) {
    let mut at = 0_u32;
    layer.visit_mut("", &mut |name, parameter| {
        // Away from the start values, where half of the formulas are not seen.
        for value in parameter.as_mut_slice() {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(at >> 8) / f64::from(1 << 24) - 0.5;
            *value = if name.ends_with("running_var") { 1.0 + noise } else { *value + 0.3 * noise };
        }
    });
    for pattern in frozen {
        layer.freeze(pattern).unwrap();
    }
    for error in check_gradients(&*layer, &input(shape)).unwrap() {
        assert!(error.relative < RELATIVE, "{}: {error:?}", layer.kind());
    }
}

#[test]
fn convolutions_match_finite_differences() {
    check(Conv2d::builder(5, 3).build().unwrap(), [2, 3, 5, 5]);
    check(Conv2d::builder(17, 19).without_bias().build().unwrap(), [1, 3, 3, 17]);
    check(Conv2d::builder(3, 5).kernel_size(3).stride(2).build().unwrap(), [2, 7, 6, 3]);
    check(Conv2d::builder(4, 6).kernel_size(3).groups(2).dilation(2).build().unwrap(), [2, 7, 5, 4]);
    check(Conv2d::builder(2, 3).kernel_size(2).stride(3).padding(Padding::Same).build().unwrap(), [1, 8, 7, 2]);
    check(Conv2d::builder(2, 2).kernel_size(1).stride(2).build().unwrap(), [2, 5, 5, 2]);
}

#[test]
fn depthwise_convolutions_match_finite_differences() {
    for kernel in [1, 2, 3, 5] {
        for stride in [1, 2, 3] {
            for padding in [Padding::Same, Padding::VALID, Padding::Symmetric(2)] {
                let layer = DepthwiseConv2d::builder(3).kernel_size(kernel).stride(stride).padding(padding);
                check(layer.build().unwrap(), [2, 7, 6, 3]);
            }
        }
    }
    let layer = DepthwiseConv2d::builder(2).channel_multiplier(3).dilation(2).stride(2);
    check(layer.build().unwrap(), [2, 9, 8, 2]);
}

#[test]
fn elementwise_layers_and_pools_match_finite_differences() {
    check(Relu, [2, 3, 3, 3]);
    check(Relu6, [2, 3, 3, 3]);
    check(Softmax, [2, 2, 2, 5]);
    check(GlobalAveragePool, [2, 3, 5, 4]);
    check(GlobalMaxPool, [2, 3, 5, 4]);
    check(Flatten, [2, 3, 2, 2]);
    check(Dropout::new(0.4).unwrap(), [2, 3, 3, 4]);
    check(Linear::builder(12, 5).build().unwrap(), [3, 2, 2, 3]);
}

#[test]
fn batch_norms_match_finite_differences() {
    check(BatchNorm2d::builder(3).build().unwrap(), [2, 3, 3, 3]);
    check_frozen(Box::new(BatchNorm2d::builder(3).build().unwrap()), [2, 3, 3, 3], &["running_*"]);
    // Lazy normalisation and activation meet every kind of neighbour.
    let chain = Sequential::new()
        .push(Conv2d::builder(3, 17).build().unwrap())
        .push(BatchNorm2d::builder(17).build().unwrap())
        .push(Relu6)
        .push(DepthwiseConv2d::builder(17).stride(2).build().unwrap())
        .push(Relu)
        .push(BatchNorm2d::builder(17).build().unwrap())
        .push(Relu6)
        .push(Relu)
        .push(Conv2d::builder(17, 4).kernel_size(3).build().unwrap())
        .push(BatchNorm2d::builder(4).build().unwrap())
        .push(BatchNorm2d::builder(4).build().unwrap())
        .push(Dropout::new(0.2).unwrap())
        .push(Relu)
        .push(Flatten)
        .push(Linear::builder(36, 3).build().unwrap());
    check(chain, [3, 5, 5, 3]);
}

#[test]
fn blocks_match_finite_differences() {
    for activation in [Activation::Relu6, Activation::Relu, Activation::None] {
        check(ConvBnRelu::builder(3, 18).activation(activation).build().unwrap(), [2, 5, 3, 3]);
    }
    check(ConvBnRelu::builder(3, 4).kernel_size(3).stride(2).build().unwrap(), [2, 7, 5, 3]);
    check(ConvBnRelu::builder(4, 4).kernel_size(5).groups(4).build().unwrap(), [2, 7, 5, 4]);
    check(DepthwiseSeparable::builder(4, 7).stride(2).build().unwrap(), [2, 7, 5, 4]);
    check(InvertedResidual::builder(4, 4).build().unwrap(), [2, 5, 5, 4]);
    check(InvertedResidual::builder(4, 4).expand_ratio(1).build().unwrap(), [2, 5, 5, 4]);
    check(InvertedResidual::builder(4, 6).stride(2).kernel_size(5).build().unwrap(), [2, 7, 7, 4]);
    let two = || {
        Sequential::new()
            .push(InvertedResidual::builder(4, 5).build().unwrap())
            .push(InvertedResidual::builder(5, 5).build().unwrap())
    };
    check(two(), [2, 5, 5, 4]);
    check_frozen(Box::new(two()), [2, 5, 5, 4], &["0"]);
    check_frozen(Box::new(two()), [2, 5, 5, 4], &["*.running_*"]);
    check_frozen(Box::new(two()), [2, 5, 5, 4], &["*.bn.weight", "*.expand.weight"]);
}

/// Passes its input on, but doubles the gradient of one channel.
#[derive(Clone, Debug)]
struct WrongIn(usize);

impl Layer<f64> for WrongIn {
    fn kind(&self) -> &'static str {
        "WrongIn"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<f64>, _: &Runtime) -> Result<Tensor<f64>> {
        Ok(input.clone())
    }

    fn forward_train(&mut self, input: Signal<f64>, _: &mut Tape<f64>) -> Result<Signal<f64>> {
        Ok(input)
    }

    fn backward(&mut self, d_output: Gradient<f64>, tape: &mut Tape<f64>) -> Result<Option<Gradient<f64>>> {
        let mut map = d_output.into_tensor(tape)?;
        let channels = map.shape()[3];
        map.as_mut_slice().iter_mut().skip(self.0).step_by(channels).for_each(|d| *d *= 2.0);
        Ok(Some(Gradient::new(map)))
    }
}

#[test]
fn a_wrong_gradient_of_any_channel_is_found() {
    for (channels, pixels) in [(3, 5), (24, 30), (256, 3)] {
        for channel in 0..channels {
            let errors = check_gradients(&WrongIn(channel), &input([1, 1, pixels, channels])).unwrap();
            assert!(errors[0].relative > RELATIVE && errors[0].worst.0 % channels == channel, "{errors:?}");
        }
    }
}

#[test]
fn gradients_that_are_no_numbers_are_found() {
    let mut layer = Linear::<f64>::builder(3, 2).build().unwrap();
    layer.visit_mut("", &mut |name, parameter| {
        if name == "weight" {
            parameter.as_mut_slice()[1] = f64::NAN;
        }
    });
    for error in check_gradients(&layer, &input([2, 1, 1, 3])).unwrap() {
        assert!(error.relative.is_infinite(), "{error:?}");
    }
}

#[test]
fn gradients_of_another_shape_are_refused() {
    let layers: [Box<dyn Layer<f64>>; 4] =
        [Box::new(Softmax), Box::new(Dropout::new(0.5).unwrap()), Box::new(Relu), Box::new(GlobalAveragePool)];
    for mut layer in layers {
        let mut tape = Tape::new(Runtime::new());
        layer.forward_train(Signal::new(input([2, 2, 2, 5])).with_gradient(), &mut tape).unwrap();
        let result = layer.backward(Gradient::new(input([2, 2, 2, 3])), &mut tape);
        assert!(matches!(result, Err(Error::Shape { .. })), "{}", layer.kind());
    }
}
