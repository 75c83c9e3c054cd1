//! Functions of single elements, and softmax.

use super::{Gradient, Layer, Signal, Tape};
use crate::engine::{Graph, Value};
use crate::kernels::Clamp;
use crate::ops::{self, Affine};
use crate::{Element, Result, Runtime, Shape, Tensor};

/// What follows a normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// The identity: a linear layer.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`, the activation of every published MobileNetV1 and V2.
    #[default]
    Relu6,
}

impl Activation {
    /// What it adds to the id of a kernel that it is fused into.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Relu => "-relu",
            Self::Relu6 => "-relu6",
        }
    }

    /// The range a kernel cuts its outputs to.
    #[must_use]
    pub fn clamp<T: Element>(self) -> Clamp<T> {
        match self {
            Self::None => Clamp::none(),
            Self::Relu => Clamp::relu(),
            Self::Relu6 => Clamp::relu6(),
        }
    }
}

/// A layer without parameters whose output has its input's shape.
macro_rules! elementwise {
    ($($(#[$attribute:meta])* $name:ident = $function:path, $operator:ident($($range:expr)?), $train:ident;)*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl<T: Element> Layer<T> for $name {
            fn kind(&self) -> &'static str {
                stringify!($name)
            }

            fn output_shape(&self, input: Shape) -> Result<Shape> {
                Ok(input)
            }

            fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
                Ok($function(input.clone()))
            }

            fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
                $train::forward(input $(, $range)?, tape)
            }

            fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
                $train::backward(d_output, tape)
            }

            fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
                Ok(graph.$operator(name, input $(, $range)?))
            }
        }
    )*};
}

elementwise! {
    /// `max(x, 0)`.
    #[doc(alias = "ReLU")]
    Relu = ops::relu, clamp(Clamp::relu()), clamped;
    /// `min(max(x, 0), 6)`.
    #[doc(alias = "ReLU6")]
    Relu6 = ops::relu6, clamp(Clamp::relu6()), clamped;
    /// Softmax over the channels of each pixel: logits to probabilities.
    ///
    /// ```
    /// use mobilenet::Tensor;
    /// use mobilenet::layers::{Layer, Softmax};
    /// let probabilities = Softmax.forward(&Tensor::from_slice([1, 1, 1, 2], &[0.0, 3.0_f64.ln()])?)?;
    /// assert!((probabilities.as_slice()[1] - 0.75).abs() < 1e-12);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    Softmax = ops::softmax, softmax(), softened;
}

/// A clamp in training: pending, as a part of what already is if that has none yet.
mod clamped {
    use super::{Affine, Clamp, Element, Gradient, Result, Signal, Tape};

    pub(super) fn forward<T: Element>(input: Signal<T>, clamp: Clamp<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let needs_gradient = input.needs_gradient();
        let (input, affine) = match input.affine.as_deref() {
            Some(affine) if affine.clamp == Clamp::none() => {
                let affine = Affine { clamp, ..affine.clone() };
                (input, affine)
            }
            _ => {
                let channels = input.shape()[3];
                (input.settled(tape)?, Affine::activation(channels, clamp))
            }
        };
        let shares = input.affine.is_some();
        let output = input.pending(affine);
        if needs_gradient {
            tape.push((output.clone(), shares));
        }
        Ok(output)
    }

    pub(super) fn backward<T: Element>(d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (output, shares): (Signal<T>, bool) = tape.pop()?;
        let (map, sums) = d_output.masked(&output, tape)?;
        tape.recycle(output);
        // Only a normalisation that shares the affine has a use for the sums.
        Ok(Some(Gradient { map, sums: shares.then_some(sums), through: None }))
    }
}

/// Softmax in training.
mod softened {
    use super::{Element, Gradient, Result, Signal, Tape, ops};
    use crate::Error;

    pub(super) fn forward<T: Element>(input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let needs_gradient = input.needs_gradient();
        let output = Signal::output(ops::softmax(input.into_tensor(tape)?), needs_gradient);
        if needs_gradient {
            tape.push(output.clone());
        }
        Ok(output)
    }

    /// `d_input[c] = y[c] * (d[c] - sum over k of d[k] * y[k])`
    pub(super) fn backward<T: Element>(d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let output: Signal<T> = tape.pop()?;
        let mut map = d_output.into_tensor(tape)?;
        if map.shape() != output.map.shape() {
            return Err(Error::shape("softmax", "d_output", &map.shape(), format_args!("{:?}", output.map.shape())));
        }
        let channels = map.shape()[3].max(1);
        for (d, y) in map.as_mut_slice().chunks_exact_mut(channels).zip(output.map.as_slice().chunks_exact(channels)) {
            let sum: T = d.iter().zip(y).map(|(&d, &y)| d * y).sum();
            d.iter_mut().zip(y).for_each(|(d, &y)| *d = y * (*d - sum));
        }
        tape.recycle(output);
        Ok(Some(Gradient::new(map)))
    }
}
