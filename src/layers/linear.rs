//! Fully connected layer, and the reshaping that may come before it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use core::marker::PhantomData;

use ndarray::ArrayView2;

use super::conv::Bias;
use super::filter::{MAX_CHANNELS, check_range, check_weight};
use super::{Gradient, Initializer, Layer, Parameter, Role, Signal, Tape, dotted, rounded, trains};
use crate::engine::{Filter, FilterWeights, Graph, Value};
use crate::kernels::Clamp;
use crate::ops::{self, Backward, Epilogue};
use crate::{Element, Error, Padding, Result, Runtime, Shape, Tensor, Window};

/// Fully connected layer: each image is one row, `[N, H, W, C] -> [N, 1, 1, O]` with `H * W * C == I`.
///
/// Parameters: `weight [I, O]`, `bias [O]`.
///
/// ```
/// use mobilenet::layers::{Layer, Linear};
/// let head = Linear::<f32>::builder(1280, 10).seed(1).build()?;
/// assert_eq!(head.output_shape([4, 1, 1, 1280])?, [4, 1, 1, 10]);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "Dense")]
pub struct Linear<T> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
}

impl<T: Element> Linear<T> {
    /// Options for a layer with bias between these sizes.
    pub fn builder(in_features: usize, out_features: usize) -> LinearBuilder<T> {
        LinearBuilder {
            in_features,
            out_features,
            bias: Bias::Zeros,
            initializer: Initializer::default(),
            seed: 0,
            element: PhantomData,
        }
    }

    /// The weight.
    #[must_use]
    pub fn weight(&self) -> &Parameter<T> {
        &self.weight
    }

    /// The bias, if it has one.
    #[must_use]
    pub fn bias(&self) -> Option<&Parameter<T>> {
        self.bias.as_ref()
    }

    fn size(&self) -> [usize; 2] {
        [self.weight.shape()[0], self.weight.shape()[1]]
    }
}

/// Elements of one image, if they can be counted.
fn elements([_, h, w, c]: Shape) -> Option<usize> {
    h.checked_mul(w)?.checked_mul(c)
}

impl<T: Element> Layer<T> for Linear<T> {
    fn kind(&self) -> &'static str {
        "Linear"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        let [inputs, outputs] = self.size();
        if elements(input) != Some(inputs) {
            return Err(Error::shape("linear", "input", &input, format_args!("{inputs} elements per image")));
        }
        Ok([input[0], 1, 1, outputs])
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        let weight = ArrayView2::from_shape(self.size(), self.weight.as_slice()).expect("the weight's own shape");
        let epilogue = Epilogue { bias: self.bias.as_ref().map(Parameter::as_slice), ..Epilogue::default() };
        ops::linear(input, weight, epilogue, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let shape = input.shape();
        let output_shape = self.output_shape(shape)?;
        let needs_gradient = input.needs_gradient();
        let trains = trains(self) || needs_gradient;
        let rows = input.reshaped([shape[0], 1, 1, self.size()[0]], tape)?;
        let mut output = tape.tensor(output_shape)?;
        let bias = self.bias.as_ref().map(Parameter::as_slice);
        ops::pointwise_forward(rows.lazy(), self.weight.as_slice(), bias, &mut output, None, tape.runtime())?;
        if trains {
            tape.push((rows, shape));
        }
        Ok(Signal::output(output, trains))
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (rows, shape): (Signal<T>, Shape) = tape.pop()?;
        let mut d_input = rows.needs_gradient().then(|| tape.tensor(rows.shape())).transpose()?;
        let trains = !self.weight.is_frozen();
        let (weight, d_weight) = self.weight.parts_mut();
        let work = Backward {
            input: rows.lazy(),
            d_output: d_output.lazy(),
            weight,
            d_weight: trains.then_some(d_weight),
            d_bias: self.bias.as_mut().filter(|bias| !bias.is_frozen()).map(Parameter::gradient_mut),
            d_input: d_input.as_mut(),
        };
        let sums = ops::pointwise_backward(work, tape.runtime())?;
        tape.recycle_gradient(d_output);
        tape.recycle(rows);
        let Some(map) = d_input else { return Ok(None) };
        Ok(Some(Gradient { map: map.reshaped(shape)?, sums, through: None }))
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let row = graph.flatten(name, input);
        let weights = || {
            let zeros = || vec![0.0; self.size()[1]].into();
            let bias = self.bias.as_ref().map_or_else(zeros, |b| rounded(b.as_slice()));
            FilterWeights { weight: rounded(self.weight.as_slice()), scale: None, bias }
        };
        let filter = Filter {
            window: Window::new(1, Padding::VALID),
            channels: self.size(),
            groups: 1,
            weights: Box::new(weights),
            clamp: Clamp::none(),
        };
        graph.convolution(name, row, filter, None)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &self.weight);
        if let Some(bias) = &self.bias {
            visitor(dotted(prefix, "bias"), bias);
        }
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visitor(dotted(prefix, "bias"), bias);
        }
    }

    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        let [n, ..] = self.output_shape(input)?;
        Ok((self.weight.len() as u64).saturating_mul(n as u64))
    }

    fn kernel(&self) -> Option<String> {
        Some(alloc::format!("{}-linear", core::any::type_name::<T>()))
    }
}

/// Options of a [`Linear`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct LinearBuilder<T> {
    in_features: usize,
    out_features: usize,
    bias: Bias,
    initializer: Initializer,
    seed: u64,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> LinearBuilder<T> {
    setters! {
        /// Initial weights, torchvision's by default.
        initializer: Initializer => initializer;
        /// Seed of the initial weights, 0 by default.
        seed: u64 => seed;
    }

    /// Leaves the bias out.
    pub fn without_bias(mut self) -> Self {
        self.bias = Bias::Absent;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd.
    pub fn build(self) -> Result<Linear<T>> {
        const OPERATION: &str = "linear";
        let shape = [self.in_features, self.out_features];
        check_range(OPERATION, "input features", self.in_features, usize::MAX)?;
        check_range(OPERATION, "output features", self.out_features, MAX_CHANNELS)?;
        check_weight(OPERATION, &shape)?;
        let weight = self.initializer.weight(Role::LinearWeight, &shape, 1, self.seed);
        Ok(Linear { weight, bias: self.bias.build(self.out_features) })
    }
}

/// Each image as one pixel: `[N, H, W, C] -> [N, 1, 1, H * W * C]`, channels innermost (PyTorch's order of the
/// same elements has them outermost).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flatten;

impl<T: Element> Layer<T> for Flatten {
    fn kind(&self) -> &'static str {
        "Flatten"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        let elements = elements(input);
        let elements = elements.ok_or_else(|| Error::shape("flatten", "input", &input, "a shape that fits memory"))?;
        Ok([input[0], 1, 1, elements])
    }

    fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
        Tensor::from_slice(Layer::<T>::output_shape(self, input.shape())?, input.as_slice())
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let shape = input.shape();
        if input.needs_gradient() {
            tape.push(shape);
        }
        input.reshaped(Layer::<T>::output_shape(self, shape)?, tape)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let shape: Shape = tape.pop()?;
        Ok(Some(Gradient::new(d_output.into_tensor(tape)?.reshaped(shape)?)))
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        Ok(graph.flatten(name, input))
    }
}
