//! Elementwise functions and softmax.

use crate::kernels::{Clamp, reference};
use crate::{Element, Error, Result, Tensor};

/// Cuts every element to a range.
#[must_use]
pub fn clamp<T: Element>(mut input: Tensor<T>, range: Clamp<T>) -> Tensor<T> {
    for value in input.as_mut_slice() {
        *value = range.apply(*value);
    }
    input
}

/// `max(x, 0)`.
#[must_use]
pub fn relu<T: Element>(input: Tensor<T>) -> Tensor<T> {
    clamp(input, Clamp::relu())
}

/// `min(max(x, 0), 6)`.
#[must_use]
pub fn relu6<T: Element>(input: Tensor<T>) -> Tensor<T> {
    clamp(input, Clamp::relu6())
}

/// Elementwise sum of two tensors of one shape.
///
/// # Errors
///
/// If the shapes differ.
pub fn add<T: Element>(mut left: Tensor<T>, right: &Tensor<T>) -> Result<Tensor<T>> {
    if left.shape() != right.shape() {
        return Err(Error::shape("add", "right", &right.shape(), format_args!("{:?}", left.shape())));
    }
    for (left, &right) in left.as_mut_slice().iter_mut().zip(right.as_slice()) {
        *left += right;
    }
    Ok(left)
}

/// Softmax over the channels of each pixel.
#[must_use]
pub fn softmax<T: Element>(mut input: Tensor<T>) -> Tensor<T> {
    let channels = input.shape()[3];
    if channels > 0 {
        input.as_mut_slice().chunks_exact_mut(channels).for_each(reference::softmax);
    }
    input
}
