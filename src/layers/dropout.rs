//! Dropout.

use rand_distr::{Distribution, StandardUniform};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

use super::{Gradient, Layer, Signal, Tape};
use crate::engine::{Graph, Value};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// Dropout (Srivastava et al. 2014): in training, drops elements and scales the others up; the identity at inference.
///
/// ```
/// use mobilenet::layers::Dropout;
/// assert_eq!(Dropout::new(0.2)?.rate(), 0.2);
/// assert!(Dropout::new(1.0).is_err());
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "f64", into = "f64"))]
pub struct Dropout {
    rate: f64,
}

impl TryFrom<f64> for Dropout {
    type Error = Error;

    /// As [`Dropout::new`].
    fn try_from(rate: f64) -> Result<Self> {
        Self::new(rate)
    }
}

impl From<Dropout> for f64 {
    fn from(dropout: Dropout) -> Self {
        dropout.rate
    }
}

impl Dropout {
    /// `rate` is the probability that training drops an element (TF-slim's `keep_prob` is 1 minus this).
    ///
    /// # Errors
    ///
    /// If `rate` is not in `[0, 1)`.
    pub fn new(rate: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::invalid("dropout", "rate", rate, "at least 0 and below 1"));
        }
        Ok(Self { rate })
    }

    /// The probability that training drops an element.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Drops elements by this seed and scales the others by `1 / (1 - rate)`, which keeps the mean: the same ones of a
    /// map and of its gradient.
    fn drop<T: Element>(self, map: &mut Tensor<T>, seed: u64) {
        let (keep, mut random) = (T::from_f64(1.0 / (1.0 - self.rate)), Pcg64::seed_from_u64(seed));
        for value in map.as_mut_slice() {
            let draw: f64 = StandardUniform.sample(&mut random);
            *value = if draw < self.rate { T::zero() } else { *value * keep };
        }
    }
}

impl<T: Element> Layer<T> for Dropout {
    fn kind(&self) -> &'static str {
        "Dropout"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
        Ok(input.clone())
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let needs_gradient = input.needs_gradient();
        let (mut map, seed) = (input.into_tensor(tape)?, tape.draw_seed());
        self.drop(&mut map, seed);
        if needs_gradient {
            tape.push((seed, map.shape()));
        }
        Ok(Signal::output(map, needs_gradient))
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (seed, shape): (u64, Shape) = tape.pop()?;
        let mut map = d_output.into_tensor(tape)?;
        if map.shape() != shape {
            return Err(Error::shape("dropout", "d_output", &map.shape(), format_args!("{shape:?}")));
        }
        self.drop(&mut map, seed);
        Ok(Some(Gradient::new(map)))
    }

    fn is_frozen(&self) -> bool {
        self.rate == 0.0
    }

    fn lower<'a>(&'a self, _: &mut Graph<'a>, _: &str, input: Value) -> Result<Value> {
        Ok(input)
    }
}
