//! Fully connected layer as a matrix product over rows.

use ndarray::ArrayView2;

use super::{Epilogue, pointwise_conv2d};
use crate::{Element, Error, Result, Runtime, Tensor};

/// `output[n, o] = clamp(bias[o] + sum over i of input[n, i] * weight[i, o] + residual)`.
///
/// Shapes: `input [N, H, W, C]` with `H * W * C == I` (each image is one row), `weight [I, O]`, output `[N, 1, 1, O]`.
///
/// # Errors
///
/// If `H * W * C` is not `I`, or the epilogue does not fit.
pub fn linear<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView2<'_, T>,
    epilogue: Epilogue<'_, T>,
    runtime: &Runtime,
) -> Result<Tensor<T>> {
    let [n, h, w, c] = input.shape();
    let features = weight.dim().0;
    if [h, w, c] == [1, 1, features] {
        return pointwise_conv2d(input, weight, epilogue, runtime);
    }
    if h * w * c != features {
        return Err(Error::shape("linear", "input", &input.shape(), format_args!("{features} elements per image")));
    }
    let rows = Tensor::from_slice([n, 1, 1, features], input.as_slice())?;
    pointwise_conv2d(&rows, weight, epilogue, runtime)
}
