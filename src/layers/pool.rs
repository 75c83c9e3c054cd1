//! Pooling of whole maps.

use super::{Gradient, Layer, Signal, Tape};
use crate::engine::{Graph, Value};
use crate::{Element, Error, Result, Runtime, Shape, Tensor, ops};

/// What a mean keeps for backward, and its gradient.
mod average {
    use super::{Element, Result, Shape, Signal, Tape, Tensor, ops};

    /// Of the input, the shape.
    pub(super) fn keep<T: Element>(input: Signal<T>, tape: &mut Tape<T>) {
        tape.push(input.shape());
        tape.recycle(input);
    }

    pub(super) fn backward<T: Element>(d_output: &Tensor<T>, tape: &mut Tape<T>) -> Result<Tensor<T>> {
        let shape: Shape = tape.pop()?;
        let mut d_input = tape.tensor(shape)?;
        ops::global_average_pool_gradient(d_output, &mut d_input)?;
        Ok(d_input)
    }
}

/// What a maximum keeps for backward, and its gradient.
mod max {
    use super::{Element, Result, Signal, Tape, Tensor, ops};

    pub(super) fn keep<T: Element>(input: Signal<T>, tape: &mut Tape<T>) {
        tape.push(input);
    }

    pub(super) fn backward<T: Element>(d_output: &Tensor<T>, tape: &mut Tape<T>) -> Result<Tensor<T>> {
        let input: Signal<T> = tape.pop()?;
        let mut d_input = tape.tensor(input.shape())?;
        ops::global_max_pool_gradient(&input.map, d_output, &mut d_input)?;
        tape.recycle(input);
        Ok(d_input)
    }
}

/// A layer without parameters that reduces each map to one pixel.
macro_rules! global_pools {
    ($($(#[$attribute:meta])* $name:ident = $function:path, $train:ident, $operator:ident, $operation:literal;)*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl<T: Element> Layer<T> for $name {
            fn kind(&self) -> &'static str {
                stringify!($name)
            }

            fn output_shape(&self, input: Shape) -> Result<Shape> {
                if input[1] == 0 || input[2] == 0 {
                    return Err(Error::shape($operation, "input", &input, "a map of at least one pixel"));
                }
                Ok([input[0], 1, 1, input[3]])
            }

            fn forward_with(&self, input: &Tensor<T>, _: &Runtime) -> Result<Tensor<T>> {
                $function(input)
            }

            fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
                let input = input.settled(tape)?;
                let needs_gradient = input.needs_gradient();
                let output = $function(&input.map)?;
                if needs_gradient {
                    $train::keep(input, tape);
                } else {
                    tape.recycle(input);
                }
                Ok(Signal::output(output, needs_gradient))
            }

            fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
                let d_output = d_output.into_tensor(tape)?;
                Ok(Some(Gradient::new($train::backward(&d_output, tape)?)))
            }

            fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
                Ok(graph.$operator(name, input))
            }
        }
    )*};
}

global_pools! {
    /// Mean over each map: `[N, H, W, C] -> [N, 1, 1, C]`.
    #[doc(alias = "AdaptiveAvgPool2d")]
    #[doc(alias = "GlobalAveragePooling2D")]
    GlobalAveragePool = ops::global_average_pool, average, global_average, "global_average_pool";
    /// Greatest value of each map: `[N, H, W, C] -> [N, 1, 1, C]`.
    #[doc(alias = "GlobalMaxPooling2D")]
    GlobalMaxPool = ops::global_max_pool, max, global_max, "global_max_pool";
}
