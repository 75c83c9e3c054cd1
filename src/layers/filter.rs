//! What every convolutional layer has: a checked weight, its window and the operation that runs it.
//!
//! One place decides between pointwise, depthwise and dense, so that `Conv2d` and `ConvBnRelu` cannot disagree.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use ndarray::{ArrayView2, ArrayView4};

use super::{Activation, Gradient, Initializer, Parameter, Role, Signal, Tape};
use crate::engine::{self, FilterWeights};
use crate::ops::{self, Backward, Epilogue, Moments};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Padding, Result, Runtime, Shape, Tensor, Window};

/// Most channels of a layer; the widest published MobileNet has 1792.
pub(crate) const MAX_CHANNELS: usize = 1 << 16;

/// Most elements of a weight, 512 MiB of `f32`: an absurd width becomes an error before it becomes an allocation.
/// The largest published one has 1.8 million.
const MAX_ELEMENTS: usize = 1 << 27;

/// `value` itself if it is 1 to `most`.
pub(crate) fn check_range(operation: &'static str, argument: &'static str, value: usize, most: usize) -> Result<usize> {
    if value == 0 || value > most {
        return Err(Error::invalid(operation, argument, value, format_args!("1 to {most}")));
    }
    Ok(value)
}

/// Refuses a weight too large to be meant.
pub(super) fn check_weight(operation: &'static str, shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    if elements.is_none_or(|elements| elements > MAX_ELEMENTS) {
        return Err(Error::invalid(
            operation,
            "weight shape",
            format!("{shape:?}"),
            format_args!("at most {MAX_ELEMENTS} elements"),
        ));
    }
    Ok(())
}

/// The options that builders of convolutional layers share.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct FilterOptions {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) groups: usize,
    pub(super) kernel_size: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) padding: Option<Padding>,
    pub(super) initializer: Initializer,
    pub(super) seed: u64,
}

impl FilterOptions {
    pub(super) fn new(in_channels: usize, out_channels: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            groups: 1,
            kernel_size: 1,
            stride: 1,
            dilation: 1,
            padding: None,
            initializer: Initializer::default(),
            seed: 0,
        }
    }

    pub(super) fn build<T: Element>(&self, operation: &'static str) -> Result<Filter<T>> {
        let &Self { in_channels, out_channels, groups, kernel_size, .. } = self;
        check_range(operation, "input channels", in_channels, MAX_CHANNELS)?;
        check_range(operation, "output channels", out_channels, MAX_CHANNELS)?;
        check_range(operation, "groups", groups, in_channels)?;
        for (argument, channels) in [("input channels", in_channels), ("output channels", out_channels)] {
            if channels % groups != 0 {
                return Err(Error::invalid(
                    operation,
                    argument,
                    channels,
                    format_args!("a multiple of {groups} groups"),
                ));
            }
        }
        let window = window(operation, kernel_size, self.stride, self.dilation, self.padding)?;
        let (role, shape) = if groups == in_channels && groups > 1 {
            (Role::DepthwiseWeight, [kernel_size, kernel_size, in_channels, out_channels / groups])
        } else {
            (Role::ConvWeight, [kernel_size, kernel_size, in_channels / groups, out_channels])
        };
        check_weight(operation, &shape)?;
        let weight = self.initializer.weight(role, &shape, groups, self.seed);
        Ok(Filter { operation, weight, window, in_channels, out_channels })
    }
}

/// A checked window; without a padding, PyTorch's: the map keeps its size at stride 1 under an odd kernel.
pub(super) fn window(
    operation: &'static str,
    kernel_size: usize,
    stride: usize,
    dilation: usize,
    padding: Option<Padding>,
) -> Result<Window> {
    check_range(operation, "kernel size", kernel_size, MAX_CHANNELS)?;
    check_range(operation, "stride", stride, MAX_CHANNELS)?;
    check_range(operation, "dilation", dilation, MAX_CHANNELS)?;
    let padding = padding.unwrap_or(Padding::Symmetric(((kernel_size - 1) / 2).saturating_mul(dilation)));
    Ok(Window::new(kernel_size, padding).stride(stride).dilation(dilation))
}

/// A convolution's weight and window.
#[derive(Clone, Debug)]
pub(super) struct Filter<T> {
    operation: &'static str,
    pub(super) weight: Parameter<T>,
    pub(super) window: Window,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
}

impl<T: Element> Filter<T> {
    pub(super) fn groups(&self) -> usize {
        match self.weight.role() {
            Role::DepthwiseWeight => self.in_channels,
            _ => self.in_channels / self.weight.shape()[2],
        }
    }

    /// Whether it is a matrix product over pixels.
    fn is_pointwise(&self) -> bool {
        let Window { kernel, stride, padding, .. } = self.window;
        let padless = Padding::Explicit { top: 0, bottom: 0, left: 0, right: 0 };
        kernel == [1, 1]
            && stride == [1, 1]
            && (padding == Padding::Same || padding == Padding::VALID || padding == padless)
            && self.groups() == 1
    }

    fn geometry(&self, [n, h, w, c]: Shape) -> Result<Conv2dGeometry> {
        if c != self.in_channels {
            let expected = format_args!("[N, H, W, {}]", self.in_channels);
            return Err(Error::shape(self.operation, "input", &[n, h, w, c], expected));
        }
        self.window.over([h, w])
    }

    pub(super) fn output_shape(&self, input: Shape) -> Result<Shape> {
        let [h, w] = self.geometry(input)?.output;
        Ok([input[0], h, w, self.out_channels])
    }

    pub(super) fn multiply_adds(&self, input: Shape) -> Result<u64> {
        let [n, h, w, c] = self.output_shape(input)?;
        let per_output = self.weight.len() / self.out_channels;
        Ok([n, h, w, c].iter().fold(per_output as u64, |product, &extent| product.saturating_mul(extent as u64)))
    }

    /// See [`Layer::kernel`](super::Layer::kernel).
    pub(super) fn kernel(&self, activation: Activation) -> String {
        let Window { kernel: [h, w], stride: [stride, _], dilation: [dilation, _], .. } = self.window;
        let element = core::any::type_name::<T>();
        let kind = match self.weight.role() {
            _ if self.is_pointwise() => String::from("pw"),
            Role::DepthwiseWeight => format!("dw{h}x{w}s{stride}"),
            _ => format!("conv{h}x{w}s{stride}"),
        };
        let dilation = if dilation > 1 { format!("d{dilation}") } else { String::new() };
        let groups = match (self.weight.role(), self.groups()) {
            (Role::DepthwiseWeight, _) | (_, 1) => String::new(),
            (_, groups) => format!("g{groups}"),
        };
        format!("{element}-{kind}{dilation}{groups}{}", activation.suffix())
    }

    /// The operator, with weights that are computed when they are packed.
    pub(super) fn lower<'a>(
        &self,
        activation: Activation,
        weights: impl Fn() -> FilterWeights<'a> + 'a,
    ) -> engine::Filter<'a> {
        engine::Filter {
            window: self.window,
            channels: [self.in_channels, self.out_channels],
            groups: self.groups(),
            weights: Box::new(weights),
            clamp: activation.clamp(),
        }
    }

    /// Runs the convolution with `weight` in place of its own, of the same shape.
    pub(super) fn forward(
        &self,
        input: &Tensor<T>,
        weight: &[T],
        epilogue: Epilogue<'_, T>,
        runtime: &Runtime,
    ) -> Result<Tensor<T>> {
        const SAME_SIZE: &str = "a weight of the filter's shape";
        self.geometry(input.shape())?;
        if self.is_pointwise() {
            let shape = [self.in_channels, self.out_channels];
            let weight = ArrayView2::from_shape(shape, weight).expect(SAME_SIZE);
            return ops::pointwise_conv2d(input, weight, epilogue, runtime);
        }
        let &[kernel_h, kernel_w, inputs, outputs] = self.weight.shape() else { unreachable!("four axes by build") };
        let weight = ArrayView4::from_shape([kernel_h, kernel_w, inputs, outputs], weight).expect(SAME_SIZE);
        match self.weight.role() {
            Role::DepthwiseWeight => ops::depthwise_conv2d(input, weight, &self.window, epilogue, runtime),
            _ => ops::conv2d(input, weight, &self.window, epilogue, runtime),
        }
    }

    /// The forward convolution of a training step; adds the output's moments if asked for.
    pub(super) fn forward_train(
        &self,
        input: &Signal<T>,
        bias: Option<&[T]>,
        moments: Option<&mut Moments>,
        tape: &mut Tape<T>,
    ) -> Result<Tensor<T>> {
        let geometry = self.geometry(input.shape())?;
        let [h, w] = geometry.output;
        let (weight, shape) = (self.weight.as_slice(), [input.shape()[0], h, w, self.out_channels]);
        if shape.contains(&0) {
            return Err(Error::shape(self.operation, "input", &input.shape(), "at least one image and pixel"));
        }
        let mut output = tape.tensor(shape)?;
        if self.is_pointwise() {
            ops::pointwise_forward(input.lazy(), weight, bias, &mut output, moments, tape.runtime())?;
            return Ok(output);
        }
        if self.weight.role() == Role::DepthwiseWeight {
            ops::depthwise_forward(&geometry, input.lazy(), weight, bias, &mut output, moments, tape.runtime())?;
            return Ok(output);
        }
        let &[kernel_h, kernel_w, inputs, outputs] = self.weight.shape() else { unreachable!("four axes by build") };
        let weight = ArrayView4::from_shape([kernel_h, kernel_w, inputs, outputs], weight).expect("its own shape");
        ops::conv_forward(&self.window, input.lazy(), weight, bias, &mut output, moments, tape.runtime())?;
        Ok(output)
    }

    /// Adds to the gradients of weight and bias, unless they are frozen, and returns that of the input if it needs one.
    pub(super) fn backward(
        &mut self,
        bias: Option<&mut Parameter<T>>,
        input: Signal<T>,
        d_output: Gradient<T>,
        tape: &mut Tape<T>,
    ) -> Result<Option<Gradient<T>>> {
        let geometry = self.geometry(input.shape())?;
        let (pointwise, groups, role) = (self.is_pointwise(), self.groups(), self.weight.role());
        let mut d_input = input.needs_gradient().then(|| tape.tensor(input.shape())).transpose()?;
        let trains = !self.weight.is_frozen();
        let (weight, d_weight) = self.weight.parts_mut();
        let work = Backward {
            input: input.lazy(),
            d_output: d_output.lazy(),
            weight,
            d_weight: trains.then_some(d_weight),
            d_bias: bias.filter(|bias| !bias.is_frozen()).map(Parameter::gradient_mut),
            d_input: d_input.as_mut(),
        };
        let sums = if pointwise {
            ops::pointwise_backward(work, tape.runtime())?
        } else if role == Role::DepthwiseWeight {
            ops::depthwise_backward(&geometry, work, tape.runtime())?
        } else {
            ops::conv_backward(&geometry, groups, work, tape.runtime())?
        };
        tape.recycle_gradient(d_output);
        tape.recycle(input);
        Ok(d_input.map(|map| Gradient { map, sums, through: None }))
    }
}
