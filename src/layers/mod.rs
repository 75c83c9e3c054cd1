//! Layers: parameters and the math that uses them.
//!
//! A layer knows its forward, its output shape and its named parameters; composition is by value, without a graph.

mod parameter;
mod state;

pub use parameter::{Parameter, Role};
pub use state::{LoadMode, StateDict};

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::{Element, Result, Runtime, Shape, Tensor};

/// A function of one tensor with named parameters.
///
/// Object-safe, `Send` and `Sync`: inference borrows the layer, so threads may share it.
pub trait Layer<T: Element>: CloneLayer<T> + fmt::Debug + Send + Sync {
    /// The type's name in summaries, such as `ConvBnRelu`.
    fn kind(&self) -> &'static str;

    /// The shape [`Layer::forward`] gives for an input of this shape, without computing it.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn output_shape(&self, input: Shape) -> Result<Shape>;

    /// Inference on a runtime of the caller's choice.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>>;

    /// Inference at the machine's best SIMD level on the calling thread.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn forward(&self, input: &Tensor<T>) -> Result<Tensor<T>> {
        self.forward_with(input, &Runtime::new())
    }

    /// Shows every parameter with its dotted name, `prefix` in front, always in the same order.
    fn visit<'a>(&'a self, prefix: &str, visitor: &mut dyn FnMut(String, &'a Parameter<T>)) {
        let _ = (prefix, visitor);
    }

    /// As [`Layer::visit`], to change them.
    fn visit_mut<'a>(&'a mut self, prefix: &str, visitor: &mut dyn FnMut(String, &'a mut Parameter<T>)) {
        let _ = (prefix, visitor);
    }

    /// Multiplications that are each followed by an addition, for an input of this shape; convolutions and
    /// linear layers only, as publications count them.
    ///
    /// # Errors
    ///
    /// If the layer does not take such an input.
    fn multiply_adds(&self, input: Shape) -> Result<u64> {
        let _ = input;
        Ok(0)
    }

    /// The layers this one is made of, in order, with their names; empty for a leaf. What [`summary`](crate::models)
    /// walks: each child's input is the one before's output.
    fn children(&self) -> alloc::vec::Vec<(String, &dyn Layer<T>)> {
        alloc::vec::Vec::new()
    }
}

/// Clones a boxed layer; implemented for every layer that is `Clone`.
pub trait CloneLayer<T> {
    /// A copy of this layer behind a box.
    fn clone_boxed(&self) -> Box<dyn Layer<T>>;
}

impl<T: Element, L: Layer<T> + Clone + 'static> CloneLayer<T> for L {
    fn clone_boxed(&self) -> Box<dyn Layer<T>> {
        Box::new(self.clone())
    }
}

impl<T: Element> Clone for Box<dyn Layer<T>> {
    fn clone(&self) -> Self {
        (**self).clone_boxed()
    }
}

/// `prefix.name`, or `name` alone at the root.
#[must_use]
pub fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { String::from(name) } else { alloc::format!("{prefix}.{name}") }
}
