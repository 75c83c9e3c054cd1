//! Batch normalisation as a layer.
//!
//! At inference it is one multiplication and one addition per element; convolutions fold it away.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use num_traits::Float;

use super::filter::{MAX_CHANNELS, check_range};
use super::signal::Through;
use super::{Gradient, Layer, Parameter, Role, Signal, Tape, dotted, trains};
use crate::engine::{Filter, FilterWeights, Graph, Value};
use crate::kernels::Clamp;
use crate::ops::{Affine, GradientSums, Moments};
use crate::source::BatchNormConvention;
use crate::{Architecture, Element, Error, Padding, Result, Runtime, Shape, Tensor, WeightSource, Window, ops};

/// Batch normalisation (Ioffe & Szegedy 2015) per channel; its inference form uses the running statistics:
/// `y = (x - running_mean) / sqrt(running_var + epsilon) * weight + bias`.
///
/// Parameters, each `[C]`: `weight`, `bias`, `running_mean`, `running_var`.
///
/// ```
/// use mobilenet::layers::{BatchNorm2d, Layer};
/// use mobilenet::{Tensor, WeightSource, Architecture};
/// let keras = WeightSource::Keras.batch_norm(Architecture::MobileNetV2);
/// let norm = BatchNorm2d::builder(2).convention(keras).build()?;
/// let output = norm.forward(&Tensor::from_slice([1, 1, 1, 2], &[1.0_f64, -2.0])?)?;
/// assert!((output.as_slice()[1] + 2.0 / 1.001_f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm2d<T> {
    weight: Parameter<T>,
    bias: Parameter<T>,
    running_mean: Parameter<T>,
    running_var: Parameter<T>,
    convention: BatchNormConvention,
}

impl<T: Element> BatchNorm2d<T> {
    /// Options for this many channels.
    pub fn builder(channels: usize) -> BatchNorm2dBuilder<T> {
        BatchNorm2dBuilder { channels, convention: default_convention(), element: PhantomData }
    }

    /// Epsilon and how running statistics are updated.
    #[must_use]
    pub fn convention(&self) -> BatchNormConvention {
        self.convention
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Its inference form `y = x * scale + shift`, as `(scale, shift)`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the four parameters have one length by construction")]
    pub fn fold(&self) -> (Vec<T>, Vec<T>) {
        let Self { weight, bias, running_mean, running_var, convention } = self;
        let [weight, bias, mean, var] = [weight, bias, running_mean, running_var].map(Parameter::as_slice);
        ops::fold_batch_norm(weight, bias, mean, var, convention.epsilon).expect("one length")
    }
}

impl<T: Element> BatchNorm2d<T> {
    /// Whether the running statistics are used as they are, because they are frozen.
    fn uses_running(&self) -> bool {
        self.running_mean.is_frozen() && self.running_var.is_frozen()
    }

    /// Whether a forward pass wants the moments of its input.
    pub(super) fn takes_moments(&self) -> bool {
        !self.uses_running()
    }

    /// What a training step applies to an input of these moments; updates the running statistics.
    ///
    /// The gradient by the input is `scale * (g - sum(g) / n - (x - mean) / var * sum(g * (x - mean)) / n)` (Ioffe &
    /// Szegedy 2015, section 3) with the batch's statistics, and `scale * g` with the running ones.
    pub(super) fn affine(&mut self, moments: Option<&Moments>, tape: &Tape<T>) -> Result<(Affine<T>, NormRecord)> {
        let epsilon = self.convention.epsilon;
        let value = |parameter: &Parameter<T>, c: usize| Element::to_f64(parameter.as_slice()[c]);
        let channels = 0..self.channels();
        let (mean, var): (Vec<f64>, Vec<f64>) = match moments {
            None => channels.clone().map(|c| (value(&self.running_mean, c), value(&self.running_var, c))).unzip(),
            Some(moments) if moments.count < 2 => {
                let expected = "at least 2 values per channel, or frozen running statistics";
                return Err(Error::invalid("batch_norm", "values per channel", moments.count, expected));
            }
            Some(moments) => {
                let count = moments.count as f64;
                let var: Vec<_> = moments.squares.iter().map(|squares| squares / count).collect();
                let unbiased = if self.convention.unbiased_running_variance { count / (count - 1.0) } else { 1.0 };
                let momentum = tape.momentum().unwrap_or(self.convention.momentum);
                self.update(momentum, &moments.mean, &var, unbiased);
                (moments.mean.clone(), var)
            }
        };
        let inverse: Vec<_> = var.iter().map(|var| 1.0 / Float::sqrt(var + epsilon)).collect();
        let scale: Vec<_> = channels.clone().map(|c| value(&self.weight, c) * inverse[c]).collect();
        let shift = channels.map(|c| T::from_f64(value(&self.bias, c) - mean[c] * scale[c])).collect();
        let affine = Affine {
            scale: scale.iter().copied().map(T::from_f64).collect(),
            shift,
            center: mean.iter().copied().map(T::from_f64).collect(),
            clamp: Clamp::none(),
        };
        Ok((affine, NormRecord { inverse, count: moments.map(|moments| moments.count) }))
    }

    fn update(&mut self, momentum: f64, mean: &[f64], var: &[f64], unbiased: f64) {
        let updates = [(&mut self.running_mean, mean, 1.0), (&mut self.running_var, var, unbiased)];
        for (running, batch, factor) in updates {
            if running.is_frozen() {
                continue;
            }
            for (running, batch) in running.as_mut_slice().iter_mut().zip(batch) {
                let before = Element::to_f64(*running);
                *running = T::from_f64(before + momentum * (batch * factor - before));
            }
        }
    }

    /// Adds to the gradients of weight and bias; returns what makes the gradient by the output one by the input.
    pub(super) fn backward_sums(
        &mut self,
        record: &NormRecord,
        affine: &Affine<T>,
        sums: &GradientSums,
    ) -> [Vec<T>; 3] {
        let NormRecord { inverse, count } = record;
        for (parameter, is_weight) in [(&mut self.weight, true), (&mut self.bias, false)] {
            if parameter.is_frozen() {
                continue;
            }
            for (c, gradient) in parameter.gradient_mut().iter_mut().enumerate() {
                *gradient += T::from_f64(if is_weight { sums.spread[c] * inverse[c] } else { sums.gradient[c] });
            }
        }
        let mut constants = [affine.scale.clone(), vec![T::zero(); inverse.len()], vec![T::zero(); inverse.len()]];
        let Some(count) = count.map(|count| count as f64) else { return constants };
        for (c, inverse) in inverse.iter().enumerate() {
            let scale = Element::to_f64(self.weight.as_slice()[c]) * inverse;
            let slope = -scale * inverse * inverse * sums.spread[c] / count;
            constants[1][c] = T::from_f64(slope);
            let center = Element::to_f64(affine.center[c]);
            constants[2][c] = T::from_f64(-scale * sums.gradient[c] / count - slope * center);
        }
        constants
    }
}

/// What the backward pass of a normalisation needs besides its affine.
#[derive(Clone, Debug)]
pub(super) struct NormRecord {
    /// `1 / sqrt(var + epsilon)`.
    inverse: Vec<f64>,
    /// Values per channel that the statistics were taken from; `None` if they are the running ones.
    count: Option<usize>,
}

/// PyTorch's.
pub(super) const fn default_convention() -> BatchNormConvention {
    WeightSource::Torchvision.batch_norm(Architecture::MobileNetV2)
}

impl<T: Element> Layer<T> for BatchNorm2d<T> {
    fn kind(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        let channels = self.channels();
        if input[3] != channels {
            return Err(Error::shape("batch_norm", "input", &input, format_args!("[N, H, W, {channels}]")));
        }
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
        self.output_shape(input.shape())?;
        let (scale, shift) = self.fold();
        ops::batch_norm(input.clone(), &scale, &shift)
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        self.output_shape(input.shape())?;
        let trains = trains(self) || input.needs_gradient();
        let input = input.settled(tape)?;
        let moments = self.takes_moments().then(|| ops::moments(&input.map, tape.runtime()));
        let (affine, record) = self.affine(moments.as_ref(), tape)?;
        let needs_gradient = input.needs_gradient();
        let mut output = input.pending(affine);
        if trains {
            output = output.with_gradient();
            tape.push((output.clone(), record, needs_gradient));
        }
        Ok(output)
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (output, record, needs_gradient): (Signal<T>, NormRecord, bool) = tape.pop()?;
        let (map, sums) = d_output.masked(&output, tape)?;
        let affine = output.affine.as_deref().expect("its own");
        let constants = self.backward_sums(&record, affine, &sums);
        if !needs_gradient {
            tape.recycle_tensor(map);
            return Ok(None);
        }
        Ok(Some(Gradient { map, sums: None, through: Some(Through { input: output.map, constants }) }))
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let channels = self.channels();
        let weights = || {
            let [weight, bias] = <[_; 2]>::from(self.fold()).map(|values| T::into_f32(values).into());
            FilterWeights { weight, scale: None, bias }
        };
        let filter = Filter {
            window: Window::new(1, Padding::VALID),
            channels: [channels; 2],
            groups: channels,
            weights: Box::new(weights),
            clamp: Clamp::none(),
        };
        graph.convolution(name, input, filter, None)
    }

    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &self.weight);
        visitor(dotted(prefix, "bias"), &self.bias);
        visitor(dotted(prefix, "running_mean"), &self.running_mean);
        visitor(dotted(prefix, "running_var"), &self.running_var);
    }

    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        visitor(dotted(prefix, "weight"), &mut self.weight);
        visitor(dotted(prefix, "bias"), &mut self.bias);
        visitor(dotted(prefix, "running_mean"), &mut self.running_mean);
        visitor(dotted(prefix, "running_var"), &mut self.running_var);
    }
}

/// Options of a [`BatchNorm2d`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct BatchNorm2dBuilder<T> {
    channels: usize,
    convention: BatchNormConvention,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> BatchNorm2dBuilder<T> {
    setters! {
        /// All constants of a weight source at once, PyTorch's by default.
        convention: BatchNormConvention => convention;
        /// Added to the variance before the square root.
        #[doc(alias = "eps")]
        epsilon: f64 => convention.epsilon;
        /// Weight of the new batch in a running statistic: 1 minus Keras' momentum.
        momentum: f64 => convention.momentum;
    }

    /// The layer: the identity but for epsilon.
    ///
    /// # Errors
    ///
    /// If there are no channels or too many, epsilon is not a positive finite number or momentum not in `[0, 1]`.
    pub fn build(self) -> Result<BatchNorm2d<T>> {
        const OPERATION: &str = "batch_norm";
        let Self { channels, convention, .. } = self;
        check_range(OPERATION, "channels", channels, MAX_CHANNELS)?;
        if !(convention.epsilon > 0.0 && convention.epsilon.is_finite()) {
            return Err(Error::invalid(OPERATION, "epsilon", convention.epsilon, "a positive finite number"));
        }
        if !(0.0..=1.0).contains(&convention.momentum) {
            return Err(Error::invalid(OPERATION, "momentum", convention.momentum, "0 to 1"));
        }
        let filled = |role, value| Parameter::filled(role, &[channels], value);
        Ok(BatchNorm2d {
            weight: filled(Role::NormScale, T::one()),
            bias: filled(Role::NormShift, T::zero()),
            running_mean: filled(Role::RunningStatistic, T::zero()),
            running_var: filled(Role::RunningStatistic, T::one()),
            convention,
        })
    }
}
