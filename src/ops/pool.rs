//! Pooling over windows and over whole maps.

use crate::kernels::reference::Pooling;
use crate::kernels::{self, Pixels, PixelsMut};
use crate::{Element, Result, Runtime, Tensor, Window};

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
        return Err(crate::Error::shape(operation, "input", &input.shape(), "a map of at least one pixel"));
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
