//! Convolutions: pointwise, depthwise and dense.

use ndarray::{ArrayView2, ArrayView4};

use super::{Epilogue, contiguous};
use crate::kernels::{Pixels, PixelsMut, reference};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Shape, Tensor, Window};

/// Pointwise (1x1) convolution: `[N, H, W, I] -> [N, H, W, O]` with `weight [I, O]`.
///
/// # Errors
///
/// If the input has not `I` channels, or the epilogue does not fit.
pub fn pointwise_conv2d<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView2<'_, T>,
    epilogue: Epilogue<'_, T>,
    runtime: &Runtime,
) -> Result<Tensor<T>> {
    let [n, h, w, c] = input.shape();
    let (inputs, outputs) = weight.dim();
    if c != inputs {
        return Err(Error::shape("pointwise_conv2d", "input", &input.shape(), format_args!("[N, H, W, {inputs}]")));
    }
    let shape = [n, h, w, outputs];
    epilogue.check("pointwise_conv2d", shape)?;
    let mut output = Tensor::zeros(shape)?;
    let weight = weight.as_standard_layout();
    let _ = runtime;
    reference::pointwise(
        Pixels::dense(input.as_slice(), n * h * w, inputs),
        contiguous(&weight),
        epilogue.bias,
        epilogue.residual.map(|residual| Pixels::dense(residual.as_slice(), n * h * w, outputs)),
        epilogue.clamp,
        &mut PixelsMut::dense(output.as_mut_slice(), n * h * w, outputs),
    );
    Ok(output)
}

/// Depthwise convolution: `[N, H, W, C] -> [N, OH, OW, C * M]` with `weight [KH, KW, C, M]`; output channel
/// `c * M + m` reads input channel `c`.
///
/// # Errors
///
/// If channels or window do not fit, or the epilogue does not, or it holds a residual (not supported here).
pub fn depthwise_conv2d<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView4<'_, T>,
    window: &Window,
    epilogue: Epilogue<'_, T>,
    runtime: &Runtime,
) -> Result<Tensor<T>> {
    const OPERATION: &str = "depthwise_conv2d";
    let [n, h, w, c] = input.shape();
    let (kernel_h, kernel_w, channels, multiplier) = weight.dim();
    if c != channels || [kernel_h, kernel_w] != window.kernel {
        let [kernel_h, kernel_w] = window.kernel;
        return Err(Error::shape(
            OPERATION,
            "weight",
            weight.shape(),
            format_args!("[{kernel_h}, {kernel_w}, {c}, M]"),
        ));
    }
    let geometry = window.over([h, w])?;
    let shape = [n, geometry.output[0], geometry.output[1], channels * multiplier];
    epilogue.check(OPERATION, shape)?;
    let mut output = Tensor::zeros(shape)?;
    let weight = weight.as_standard_layout();
    let weight = contiguous(&weight);
    let _ = runtime;
    let images = input.as_slice().chunks_exact((h * w * c).max(1));
    let outputs = output.as_mut_slice().chunks_exact_mut((shape[1] * shape[2] * shape[3]).max(1));
    for (image, output) in images.zip(outputs) {
        reference::depthwise(
            &geometry,
            Pixels::dense(image, h * w, c),
            weight,
            epilogue.bias,
            epilogue.clamp,
            0,
            &mut PixelsMut::dense(output, geometry.output_pixels(), shape[3]),
        );
    }
    Ok(output)
}

/// Convolution: `[N, H, W, G * I] -> [N, OH, OW, O]` with `weight [KH, KW, I, O]` and `G` groups, where `G` is
/// the input's channels over `I`.
///
/// # Errors
///
/// If channels, groups or window do not fit, or the epilogue does not, or it holds a residual (not supported here).
pub fn conv2d<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView4<'_, T>,
    window: &Window,
    epilogue: Epilogue<'_, T>,
    runtime: &Runtime,
) -> Result<Tensor<T>> {
    let shape = input.shape();
    let (geometry, groups) = conv2d_geometry(shape, weight.shape(), window)?;
    let [n, h, w, c] = shape;
    let shape = [n, geometry.output[0], geometry.output[1], weight.dim().3];
    epilogue.check("conv2d", shape)?;
    let mut output = Tensor::zeros(shape)?;
    let weight = weight.as_standard_layout();
    let weight = contiguous(&weight);
    let _ = runtime;
    let images = input.as_slice().chunks_exact((h * w * c).max(1));
    let outputs = output.as_mut_slice().chunks_exact_mut((shape[1] * shape[2] * shape[3]).max(1));
    for (image, output) in images.zip(outputs) {
        reference::conv(
            &geometry,
            groups,
            Pixels::dense(image, h * w, c),
            weight,
            epilogue.bias,
            epilogue.clamp,
            0,
            &mut PixelsMut::dense(output, geometry.output_pixels(), shape[3]),
        );
    }
    Ok(output)
}

/// Resolves a convolution with `weight [KH, KW, I, O]` over an input: its geometry and its groups.
///
/// # Errors
///
/// If channels, groups or window do not fit.
pub fn conv2d_geometry(input: Shape, weight: &[usize], window: &Window) -> Result<(Conv2dGeometry, usize)> {
    let [_, h, w, c] = input;
    let [kernel_h, kernel_w] = window.kernel;
    let expected = || {
        Error::shape(
            "conv2d",
            "weight",
            weight,
            format_args!(
                "[{kernel_h}, {kernel_w}, I, O] with I dividing the input's {c} channels and O a multiple of the groups {c} / I"
            ),
        )
    };
    let &[weight_h, weight_w, inputs, outputs] = weight else { return Err(expected()) };
    if [weight_h, weight_w] != window.kernel || inputs == 0 || c % inputs != 0 || c == 0 {
        return Err(expected());
    }
    let groups = c / inputs;
    if outputs % groups != 0 {
        return Err(expected());
    }
    Ok((window.over([h, w])?, groups))
}
