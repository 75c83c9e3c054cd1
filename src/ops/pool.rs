//! Pooling over windows and over whole maps.

use crate::kernels::reference::Pooling;
use crate::kernels::{self, Pixels, PixelsMut};
use crate::{Element, Error, Result, Runtime, Tensor, Window};

/// Pools every window of each map: `[N, H, W, C] -> [N, OH, OW, C]`.
///
/// # Errors
///
/// If the window does not fit the map.
pub fn pool2d<T: Element>(
    input: &Tensor<T>,
    window: &Window,
    pooling: Pooling,
    runtime: &Runtime,
) -> Result<Tensor<T>> {
    let [n, h, w, c] = input.shape();
    let geometry = window.over([h, w])?;
    let mut output = Tensor::zeros([n, geometry.output[0], geometry.output[1], c])?;
    let image = h * w * c;
    runtime.for_each_chunk(output.as_mut_slice(), (geometry.output_pixels() * c).max(1), |index, part| {
        let pixels = Pixels::dense(&input.as_slice()[index * image..][..image], [h, w], c);
        kernels::pool(&geometry, pooling, pixels, &mut PixelsMut::dense(part, geometry.output, c));
    });
    Ok(output)
}

/// Mean over each map: `[N, H, W, C] -> [N, 1, 1, C]`.
///
/// # Errors
///
/// If the map has no pixels.
pub fn global_average_pool<T: Element>(input: &Tensor<T>) -> Result<Tensor<T>> {
    global(input, "global_average_pool", kernels::global_average)
}

/// Greatest value of each map: `[N, H, W, C] -> [N, 1, 1, C]`.
///
/// # Errors
///
/// If the map has no pixels.
pub fn global_max_pool<T: Element>(input: &Tensor<T>) -> Result<Tensor<T>> {
    global(input, "global_max_pool", kernels::global_max)
}

fn global<T: Element>(
    input: &Tensor<T>,
    operation: &'static str,
    reduce: impl Fn(Pixels<'_, T>, &mut [T]),
) -> Result<Tensor<T>> {
    let [n, h, w, c] = input.shape();
    if h * w == 0 {
        return Err(Error::shape(operation, "input", &input.shape(), "a map of at least one pixel"));
    }
    let mut output = Tensor::zeros([n, 1, 1, c])?;
    if c > 0 {
        let images = input.as_slice().chunks_exact(h * w * c);
        for (image, output) in images.zip(output.as_mut_slice().chunks_exact_mut(c)) {
            reduce(Pixels::dense(image, [h, w], c), output);
        }
    }
    Ok(output)
}

/// The gradient of [`global_average_pool`]: each pixel of the map gets its share. Replaces what is in `d_input`.
///
/// # Errors
///
/// If `d_output` is not `[N, 1, 1, C]`.
pub fn global_average_pool_gradient<T: Element>(d_output: &Tensor<T>, d_input: &mut Tensor<T>) -> Result<()> {
    let [_, h, w, c] = d_input.shape();
    let share = T::one() / T::from_f64((h * w) as f64);
    for (d_output, d_input) in images(d_output, d_input)? {
        for pixel in d_input.chunks_exact_mut(c) {
            pixel.iter_mut().zip(d_output).for_each(|(to, &from)| *to = from * share);
        }
    }
    Ok(())
}

/// The gradient of [`global_max_pool`]: the first of the greatest pixels gets it. Replaces what is in `d_input`.
///
/// # Errors
///
/// If `d_output` is not `[N, 1, 1, C]`, or `d_input` not of the input's shape.
pub fn global_max_pool_gradient<T: Element>(
    input: &Tensor<T>,
    d_output: &Tensor<T>,
    d_input: &mut Tensor<T>,
) -> Result<()> {
    if d_input.shape() != input.shape() {
        return Err(Error::shape("global_pool", "d_input", &d_input.shape(), format_args!("{:?}", input.shape())));
    }
    let mut input = input.as_slice();
    for (d_output, d_input) in images(d_output, d_input)? {
        let image;
        (image, input) = input.split_at(d_input.len());
        d_input.fill(T::zero());
        for (c, &gradient) in d_output.iter().enumerate() {
            let mut greatest = c;
            for at in (c..image.len()).step_by(d_output.len()) {
                // As in the forward pass, a NaN wins.
                if image[at] > image[greatest] || (image[at].is_nan() && !image[greatest].is_nan()) {
                    greatest = at;
                }
            }
            d_input[greatest] = gradient;
        }
    }
    Ok(())
}

/// The gradients by output and input of each image that has any.
fn images<'a, T: Element>(
    d_output: &'a Tensor<T>,
    d_input: &'a mut Tensor<T>,
) -> Result<impl Iterator<Item = (&'a [T], &'a mut [T])>> {
    let [n, h, w, c] = d_input.shape();
    if d_output.shape() != [n, 1, 1, c] {
        return Err(Error::shape("global_pool", "d_output", &d_output.shape(), format_args!("[{n}, 1, 1, {c}]")));
    }
    let d_inputs = d_input.as_mut_slice().chunks_exact_mut((h * w * c).max(1));
    Ok(d_output.as_slice().chunks_exact(c.max(1)).zip(d_inputs))
}
