//! Checked functions on tensors: the math of the layers without their parameters.
//!
//! Wrong shapes are errors here (the user's); the kernels below only assert. Weights are borrowed ndarray views
//! in the kernels' order: `HWIO`, depthwise `HWCM`, linear `IO`.

mod activation;
mod conv;
mod gradient;
mod lazy;
mod linear;
mod norm;
mod pool;

pub use activation::{add, clamp, relu, relu6, softmax};
pub use conv::{conv2d, conv2d_geometry, depthwise_conv2d, pointwise_conv2d};
pub use gradient::{
    Backward, conv_backward, conv_forward, depthwise_backward, depthwise_forward, pointwise_backward, pointwise_forward,
};
pub use lazy::{Affine, GradientSums, Lazy, LazyGradient, Moments, add_to, apply, combine, mask, moments};
pub use linear::linear;
pub use norm::{batch_norm, fold_batch_norm};
pub use pool::{global_average_pool, global_average_pool_gradient, global_max_pool, global_max_pool_gradient, pool2d};

use crate::kernels::Clamp;
use crate::{Element, Error, Result, Tensor};

/// What a convolution does to each sum before it stores it: `clamp(bias + sum + residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// Added per output channel, `[out]`.
    pub bias: Option<&'a [T]>,
    /// Added per output element; of the output's shape.
    pub residual: Option<&'a Tensor<T>>,
    /// The range of the result.
    pub clamp: Clamp<T>,
}

impl<T: Element> Default for Epilogue<'_, T> {
    /// Nothing added, nothing cut.
    fn default() -> Self {
        Self { bias: None, residual: None, clamp: Clamp::none() }
    }
}

impl<T: Element> Epilogue<'_, T> {
    /// As [`Epilogue::check`] for a convolution that cannot add a residual.
    fn check_spatial(&self, operation: &'static str, output: crate::Shape) -> Result<()> {
        if self.residual.is_some() {
            return Err(Error::invalid(operation, "residual", "present", "none (add it with `ops::add`)"));
        }
        self.check(operation, output)
    }

    fn check(&self, operation: &'static str, output: crate::Shape) -> Result<()> {
        if let Some(bias) = self.bias
            && bias.len() != output[3]
        {
            return Err(Error::shape(operation, "bias", &[bias.len()], format_args!("[{}]", output[3])));
        }
        if let Some(residual) = self.residual
            && residual.shape() != output
        {
            return Err(Error::shape(operation, "residual", &residual.shape(), format_args!("{output:?}")));
        }
        Ok(())
    }
}

/// The elements of an array made contiguous by `as_standard_layout`.
fn contiguous<'a, T, D: ndarray::Dimension>(array: &'a ndarray::CowArray<'_, T, D>) -> &'a [T] {
    array.as_slice().expect("standard layout")
}
