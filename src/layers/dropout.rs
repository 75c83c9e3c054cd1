//! Dropout.

use super::Layer;
use crate::engine::{Graph, Value};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// Dropout (Srivastava et al. 2014): the identity at inference.
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
    fn lower<'a>(&'a self, _: &mut Graph<'a>, _: &str, input: Value) -> Result<Value> {
        Ok(input)
    }
}
