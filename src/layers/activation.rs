//! Functions of single elements, and softmax.

use super::Layer;
use crate::engine::{Graph, Value};
use crate::kernels::Clamp;
use crate::{Element, Result, Runtime, Shape, Tensor, ops};

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
    ($($(#[$attribute:meta])* $name:ident = $function:path, $operator:ident($($range:expr)?);)*) => {$(
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

            fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
                Ok(graph.$operator(name, input $(, $range)?))
            }
        }
    )*};
}

elementwise! {
    /// `max(x, 0)`.
    #[doc(alias = "ReLU")]
    Relu = ops::relu, clamp(Clamp::relu());
    /// `min(max(x, 0), 6)`.
    #[doc(alias = "ReLU6")]
    Relu6 = ops::relu6, clamp(Clamp::relu6());
    /// Softmax over the channels of each pixel: logits to probabilities.
    ///
    /// ```
    /// use mobilenet::Tensor;
    /// use mobilenet::layers::{Layer, Softmax};
    /// let probabilities = Softmax.forward(&Tensor::from_slice([1, 1, 1, 2], &[0.0, 3.0_f64.ln()])?)?;
    /// assert!((probabilities.as_slice()[1] - 0.75).abs() < 1e-12);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    Softmax = ops::softmax, softmax();
}
