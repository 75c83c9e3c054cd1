//! Batch normalisation in its inference form.

use alloc::vec::Vec;

use crate::{Element, Error, Result, Tensor};

/// Folds batch normalisation into `(scale, shift)` per channel: `y = x * scale + shift`.
///
/// `scale = weight / sqrt(running_var + epsilon)`, `shift = bias - running_mean * scale`
/// (Ioffe & Szegedy 2015, algorithm 2).
///
/// # Errors
///
/// If the four slices differ in length.
pub fn fold_batch_norm<T: Element>(
    weight: &[T],
    bias: &[T],
    running_mean: &[T],
    running_var: &[T],
    epsilon: f64,
) -> Result<(Vec<T>, Vec<T>)> {
    let channels = weight.len();
    for (argument, values) in [("bias", bias), ("running_mean", running_mean), ("running_var", running_var)] {
        if values.len() != channels {
            return Err(Error::shape("batch_norm", argument, &[values.len()], format_args!("[{channels}]")));
        }
    }
    let epsilon = T::from_f64(epsilon);
    let scale: Vec<T> = weight.iter().zip(running_var).map(|(&w, &var)| w / (var + epsilon).sqrt()).collect();
    let shift = bias.iter().zip(running_mean).zip(&scale).map(|((&b, &mean), &scale)| b - mean * scale).collect();
    Ok((scale, shift))
}

/// `y = x * scale + shift` per channel; see [`fold_batch_norm`].
///
/// # Errors
///
/// If `scale` or `shift` is not one value per channel.
pub fn batch_norm<T: Element>(mut input: Tensor<T>, scale: &[T], shift: &[T]) -> Result<Tensor<T>> {
    let channels = input.shape()[3];
    for (argument, values) in [("scale", scale), ("shift", shift)] {
        if values.len() != channels {
            return Err(Error::shape("batch_norm", argument, &[values.len()], format_args!("[{channels}]")));
        }
    }
    if channels > 0 {
        for pixel in input.as_mut_slice().chunks_exact_mut(channels) {
            for ((value, &scale), &shift) in pixel.iter_mut().zip(scale).zip(shift) {
                *value = *value * scale + shift;
            }
        }
    }
    Ok(input)
}
