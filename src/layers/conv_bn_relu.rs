//! Convolution, batch normalisation and activation in one: what MobileNets are made of.
//!
//! The normalisation is folded into a copy of the weight on every call, so that one fused operation does the rest;
//! a compiled network folds once. Dense, pointwise and depthwise convolutions are one type: the groups decide.

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::filter::{Filter, FilterOptions};
use super::norm::{NormRecord, default_convention};
use super::signal::Through;
use super::{Activation, BatchNorm2d, Gradient, Initializer, Layer, Parameter, Signal, Tape, dotted, rounded, trains};
use crate::engine::{FilterWeights, Graph, Value};
use crate::ops::{Affine, Epilogue, Moments};
use crate::source::BatchNormConvention;
use crate::{Element, Padding, Result, Runtime, Shape, Tensor, Window};

/// Convolution without bias, batch normalisation, activation: `[N, H, W, I] -> [N, OH, OW, O]`.
///
/// Parameters: `weight [K, K, I / groups, O]` (`[K, K, I, O / I]` when depthwise), and each `[O]`: `bn.weight`,
/// `bn.bias`, `bn.running_mean`, `bn.running_var`.
///
/// ```
/// use mobilenet::layers::{Activation, ConvBnRelu, Layer};
/// let stem = ConvBnRelu::<f32>::builder(3, 32).kernel_size(3).stride(2).build()?;
/// assert_eq!(stem.output_shape([1, 224, 224, 3])?, [1, 112, 112, 32]);
/// let depthwise = ConvBnRelu::<f32>::builder(32, 32).groups(32).kernel_size(3).build()?;
/// assert_eq!(depthwise.weight().shape(), [3, 3, 32, 1]);
/// let project = ConvBnRelu::<f32>::builder(32, 16).activation(Activation::None).build()?;
/// assert_eq!(project.parameter_count(), 32 * 16 + 2 * 16);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "ConvBNReLU")]
#[doc(alias = "Conv2dNormActivation")]
pub struct ConvBnRelu<T> {
    filter: Filter<T>,
    norm: BatchNorm2d<T>,
    activation: Activation,
}

impl<T: Element> ConvBnRelu<T> {
    /// Options for a 1x1 convolution between these channel counts, followed by ReLU6.
    pub fn builder(in_channels: usize, out_channels: usize) -> ConvBnReluBuilder<T> {
        ConvBnReluBuilder {
            filter: FilterOptions::new(in_channels, out_channels),
            activation: Activation::default(),
            batch_norm: default_convention(),
            element: PhantomData,
        }
    }

    /// The weight of the convolution.
    #[must_use]
    pub fn weight(&self) -> &Parameter<T> {
        &self.filter.weight
    }

    /// The normalisation.
    #[must_use]
    pub fn norm(&self) -> &BatchNorm2d<T> {
        &self.norm
    }

    /// The activation.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Kernel, stride, dilation and padding.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.filter.window
    }

    /// Number of groups; as many as input channels when depthwise.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.filter.groups()
    }

    /// Weight, in its own order, and bias of the convolution that equals this one with its normalisation.
    ///
    /// Channels that died in training fold to subnormal weights, which CPUs multiply many times slower
    /// (ncnn#2656); they become 0.
    #[must_use]
    pub fn folded(&self) -> (Vec<T>, Vec<T>) {
        let (scale, bias) = self.norm.fold();
        let mut weight = self.filter.weight.as_slice().to_vec();
        for row in weight.chunks_exact_mut(scale.len()) {
            for (weight, &scale) in row.iter_mut().zip(&scale) {
                let scaled = *weight * scale;
                *weight = if scaled.abs() < T::min_positive_value() { T::zero() } else { scaled };
            }
        }
        (weight, bias)
    }

    /// Inference that adds `residual` before the activation; only a pointwise convolution takes one.
    pub(super) fn forward_onto(
        &self,
        input: &Tensor<T>,
        residual: Option<&Tensor<T>>,
        runtime: &Runtime,
    ) -> Result<Tensor<T>> {
        let (weight, bias) = self.folded();
        let epilogue = Epilogue { bias: Some(&bias), residual, clamp: self.activation.clamp() };
        self.filter.forward(input, &weight, epilogue, runtime)
    }

    /// As [`ConvBnRelu::forward_onto`], as an operator.
    pub(super) fn lower_onto<'a>(
        &'a self,
        graph: &mut Graph<'a>,
        name: &str,
        input: Value,
        residual: Option<Value>,
    ) -> Result<Value> {
        let weights = || {
            let [scale, bias] = <[_; 2]>::from(self.norm.fold()).map(|values| T::into_f32(values).into());
            FilterWeights { weight: rounded(self.filter.weight.as_slice()), scale: Some(scale), bias }
        };
        graph.convolution(name, input, self.filter.lower(self.activation, weights), residual)
    }
}

impl<T: Element> Layer<T> for ConvBnRelu<T> {
    fn kind(&self) -> &'static str {
        "ConvBnRelu"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.filter.output_shape(input)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        self.forward_onto(input, None, runtime)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let trains = trains(self) || input.needs_gradient();
        let mut moments = self.norm.takes_moments().then(|| Moments::new(self.norm.channels()));
        let map = self.filter.forward_train(&input, None, moments.as_mut(), tape)?;
        let (affine, record) = self.norm.affine(moments.as_ref(), tape)?;
        let output = Signal::output(map, trains).pending(Affine { clamp: self.activation.clamp(), ..affine });
        if trains {
            tape.push((input, output.clone(), record));
        }
        Ok(output)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (input, output, record): (Signal<T>, Signal<T>, NormRecord) = tape.pop()?;
        let (map, sums) = d_output.masked(&output, tape)?;
        let affine = output.affine.as_deref().expect("its own");
        let constants = self.norm.backward_sums(&record, affine, &sums);
        let d_output = Gradient { map, sums: None, through: Some(Through { input: output.map, constants }) };
        self.filter.backward(None, input, d_output, tape)
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        self.lower_onto(graph, name, input, None)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &self.filter.weight);
        self.norm.visit(&dotted(prefix, "bn"), visitor);
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &mut self.filter.weight);
        self.norm.visit_mut(&dotted(prefix, "bn"), visitor);
    }

    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        self.filter.multiply_adds(input)
    }

    fn kernel(&self) -> Option<String> {
        Some(self.filter.kernel(self.activation))
    }
}

/// Options of a [`ConvBnRelu`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct ConvBnReluBuilder<T> {
    filter: FilterOptions,
    activation: Activation,
    batch_norm: BatchNormConvention,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> ConvBnReluBuilder<T> {
    setters! {
        /// Groups that channels are split into, 1 by default; as many as input channels make it depthwise.
        groups: usize => filter.groups;
        /// Rows and columns of taps, 1 by default.
        kernel_size: usize => filter.kernel_size;
        /// Step between outputs, 1 by default.
        stride: usize => filter.stride;
        /// Step between taps, 1 by default.
        #[doc(alias = "rate")]
        dilation: usize => filter.dilation;
        /// What follows the normalisation, ReLU6 by default.
        activation: Activation => activation;
        /// Constants of the normalisation, PyTorch's by default.
        batch_norm: BatchNormConvention => batch_norm;
        /// Initial weights, torchvision's by default.
        initializer: Initializer => filter.initializer;
        /// Seed of the initial weights, 0 by default.
        seed: u64 => filter.seed;
    }

    /// Zeros around the map, `(kernel_size - 1) / 2 * dilation` on each side by default.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.filter.padding = Some(padding);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd, or the groups do not divide both channel counts.
    pub fn build(self) -> Result<ConvBnRelu<T>> {
        let filter = self.filter.build("conv_bn_relu")?;
        let norm = BatchNorm2d::builder(filter.out_channels).convention(self.batch_norm).build()?;
        Ok(ConvBnRelu { filter, norm, activation: self.activation })
    }
}
