//! Convolutions: pointwise, depthwise and dense.
//!
//! Each checks its arguments, packs the weights for the runtime's SIMD level (a compiled network does it once), and
//! gives rows of the output to the runtime's threads. `f64` runs the reference kernels, pointwise through
//! matrixmultiply.

use alloc::vec::Vec;

use ndarray::{ArrayView2, ArrayView4};

use super::{Epilogue, contiguous};
use crate::aligned::Aligned;
use crate::kernels::{self, Clamp, Group, KeptRows, PackedDepthwise, PackedWeights, Pixels, PixelsMut, reference};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Shape, Tensor, Window};

/// Rows up to which a matrix product reads the weights in place: packing them would cost as much as the product.
const UNPACKED_ROWS: usize = 3;

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
    if n * h * w * outputs == 0 {
        return Ok(output);
    }
    let weight = weight.as_standard_layout();
    if let (Some(input), Some(weight), Some(output)) =
        (T::as_f32(input.as_slice()), T::as_f32(contiguous(&weight)), T::as_f32_mut(output.as_mut_slice()))
    {
        let input = Pixels::dense(input, [1, n * h * w], inputs);
        pointwise_f32(input, weight, &epilogue.in_f32(), output, runtime);
    } else {
        pointwise_any(input, weight.view(), epilogue, output.as_mut_slice());
    }
    Ok(output)
}

/// Through matrixmultiply, then the epilogue.
fn pointwise_any<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView2<'_, T>,
    epilogue: Epilogue<'_, T>,
    output: &mut [T],
) {
    let (inputs, outputs) = weight.dim();
    let pixels = output.len() / outputs;
    let rows = ArrayView2::from_shape([pixels, inputs], input.as_slice()).expect("standard layout");
    let mut sums = ndarray::Array2::zeros([pixels, outputs]);
    ndarray::linalg::general_mat_mul(T::one(), &rows, &weight, T::zero(), &mut sums);
    let residual = epilogue.residual.map(Tensor::as_slice);
    for (at, (output, sum)) in output.iter_mut().zip(sums).enumerate() {
        let bias = epilogue.bias.map_or(T::zero(), |bias| bias[at % outputs]);
        *output = epilogue.clamp.apply(bias + sum + residual.map_or(T::zero(), |residual| residual[at]));
    }
}

/// Bias, residual and clamp of a convolution in `f32`.
struct EpilogueF32<'a> {
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    clamp: Clamp<f32>,
}

impl<T: Element> Epilogue<'_, T> {
    fn in_f32(&self) -> EpilogueF32<'_> {
        let clamp =
            T::as_f32(core::slice::from_ref(&self.clamp.low)).zip(T::as_f32(core::slice::from_ref(&self.clamp.high)));
        EpilogueF32 {
            bias: self.bias.and_then(T::as_f32),
            residual: self.residual.and_then(|residual| T::as_f32(residual.as_slice())),
            clamp: clamp.map_or(Clamp::none(), |(low, high)| Clamp { low: low[0], high: high[0] }),
        }
    }
}

fn pointwise_f32(
    input: Pixels<'_, f32>,
    weight: &[f32],
    epilogue: &EpilogueF32<'_>,
    output: &mut [f32],
    runtime: &Runtime,
) {
    let (inputs, outputs) = (input.channels, output.len() / input.count());
    let level = runtime.simd_level();
    if input.count() <= UNPACKED_ROWS && epilogue.residual.is_none() {
        for (row, output) in output.chunks_exact_mut(outputs).enumerate() {
            let input = &input.data[row * inputs..][..inputs];
            kernels::linear(level, input, weight, epilogue.bias, epilogue.clamp, output);
        }
        return;
    }
    let mut packed = Aligned::new(PackedWeights::len(level, inputs, outputs));
    let weights = PackedWeights::pack(level, Pixels::dense(weight, [1, inputs], outputs), epilogue.bias, &mut packed);
    let rows = piece_of(input.count(), runtime).next_multiple_of(kernels::TILES);
    runtime.for_each_chunk(output, rows * outputs, |piece, output| {
        let (first, count) = (piece * rows, output.len() / outputs);
        let input = Pixels::dense(&input.data[first * inputs..], [1, count], inputs);
        let residual = epilogue.residual.map(|r| Pixels::dense(&r[first * outputs..], [1, count], outputs));
        let mut output = PixelsMut::dense(output, [1, count], outputs);
        kernels::pointwise(&weights, input, residual, epilogue.clamp, &mut output);
    });
}

/// Rows of a piece of work: everything for one thread; for more, four pieces each, so that none waits long for the
/// last.
fn piece_of(rows: usize, runtime: &Runtime) -> usize {
    match runtime.thread_count() {
        1 => rows,
        threads => rows.div_ceil(4 * threads),
    }
}

/// Gives pieces of the output to the threads: whole images if there are enough of them, else rows of each image.
/// Calls `work(image, first_row, rows)`.
fn for_each_piece<T: Element>(
    output: &mut [T],
    [images, height, width, channels]: Shape,
    runtime: &Runtime,
    work: impl Fn(usize, usize, PixelsMut<'_, T>) + Sync,
) {
    let work = |image, first_row, output: &mut [T]| {
        let rows = output.len() / (width * channels);
        work(image, first_row, PixelsMut::dense(output, [rows, width], channels));
    };
    let image_len = height * width * channels;
    if images >= runtime.thread_count() {
        runtime.for_each_chunk(output, image_len, |image, output| work(image, 0, output));
    } else {
        let rows = piece_of(height, runtime);
        for (image, output) in output.chunks_exact_mut(image_len).enumerate() {
            runtime.for_each_chunk(output, rows * width * channels, |piece, output| work(image, piece * rows, output));
        }
    }
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
    epilogue.check_spatial(OPERATION, shape)?;
    check_scratch(OPERATION, window, kernels::depthwise_scratch_len(&geometry))?;
    let mut output = Tensor::zeros(shape)?;
    if n * shape[3] == 0 {
        return Ok(output);
    }
    let weight = weight.as_standard_layout();
    let (weight, input) = (contiguous(&weight), input.as_slice());
    let image_len = h * w * c;
    let vectors = multiplier == 1 && channels >= PackedDepthwise::LEAST_CHANNELS;
    match (T::as_f32(input), T::as_f32(weight), T::as_f32_mut(output.as_mut_slice())) {
        (Some(input), Some(weight), Some(output)) if vectors => {
            let EpilogueF32 { bias, clamp, .. } = epilogue.in_f32();
            let mut packed = Aligned::new(PackedDepthwise::len(geometry.taps(), c));
            let weights = PackedDepthwise::pack(geometry.taps(), c, weight, bias, &mut packed);
            for_each_piece(output, shape, runtime, |image, first_row, mut output| {
                let mut scratch = Aligned::new(kernels::depthwise_scratch_len(&geometry));
                let input = Pixels::dense(&input[image * image_len..], [h, w], c);
                let level = runtime.simd_level();
                kernels::depthwise(level, &geometry, &weights, input, clamp, first_row, &mut output, &mut scratch);
            });
        }
        _ => for_each_piece(output.as_mut_slice(), shape, runtime, |image, first_row, mut output| {
            let input = Pixels::dense(&input[image * image_len..], [h, w], c);
            reference::depthwise(&geometry, input, weight, epilogue.bias, epilogue.clamp, first_row, &mut output);
        }),
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
    let (geometry, _) = conv2d_geometry(input.shape(), weight.shape(), window)?;
    let shape = [input.shape()[0], geometry.output[0], geometry.output[1], weight.dim().3];
    let mut output = Tensor::zeros(shape)?;
    conv2d_into(input, weight, window, epilogue, &mut output, runtime)?;
    Ok(output)
}

/// As [`conv2d`], into a tensor of the output's shape.
///
/// # Errors
///
/// As there, or if the output has another shape.
pub(super) fn conv2d_into<T: Element>(
    input: &Tensor<T>,
    weight: ArrayView4<'_, T>,
    window: &Window,
    epilogue: Epilogue<'_, T>,
    output: &mut Tensor<T>,
    runtime: &Runtime,
) -> Result<()> {
    let (geometry, groups) = conv2d_geometry(input.shape(), weight.shape(), window)?;
    let [n, h, w, c] = input.shape();
    let shape = [n, geometry.output[0], geometry.output[1], weight.dim().3];
    epilogue.check_spatial("conv2d", shape)?;
    check_scratch("conv2d", window, kernels::conv_scratch_len(&geometry, c))?;
    if output.shape() != shape {
        return Err(Error::shape("conv2d", "output", &output.shape(), format_args!("{shape:?}")));
    }
    if n * shape[3] == 0 {
        return Ok(());
    }
    let weight = weight.as_standard_layout();
    let (weight, input) = (contiguous(&weight), input.as_slice());
    let image_len = h * w * c;
    match (T::as_f32(input), T::as_f32(weight), T::as_f32_mut(output.as_mut_slice())) {
        (Some(input), Some(weight), Some(output)) => {
            conv_f32(&geometry, groups, [input, weight], &epilogue.in_f32(), (output, shape), runtime);
        }
        _ => for_each_piece(output.as_mut_slice(), shape, runtime, |image, first_row, mut output| {
            let input = Pixels::dense(&input[image * image_len..], [h, w], c);
            reference::conv(&geometry, groups, input, weight, epilogue.bias, epilogue.clamp, first_row, &mut output);
        }),
    }
    Ok(())
}

fn conv_f32(
    geometry: &Conv2dGeometry,
    groups: usize,
    [input, weight]: [&[f32]; 2],
    epilogue: &EpilogueF32<'_>,
    (output, shape): (&mut [f32], Shape),
    runtime: &Runtime,
) {
    let image_len = input.len() / shape[0];
    let channels = image_len / geometry.input_pixels();
    let [inputs, outputs] = [channels / groups, shape[3] / groups];
    let depth = geometry.taps() * inputs;
    let level = runtime.simd_level();
    let packed_len = PackedWeights::len(level, depth, outputs);
    let mut packed = Aligned::new(groups * packed_len);
    let groups: Vec<_> = packed
        .chunks_exact_mut(packed_len)
        .enumerate()
        .map(|(group, packed)| {
            let weight = Pixels::new(&weight[group * outputs..], [1, depth], outputs, shape[3]);
            let bias = epilogue.bias.map(|bias| &bias[group * outputs..][..outputs]);
            let weights = PackedWeights::pack(level, weight, bias, packed);
            Group { weights, first_input: group * inputs, inputs }
        })
        .collect();
    for_each_piece(output, shape, runtime, |image, first_row, output| {
        let mut scratch = Aligned::new(kernels::conv_scratch_len(geometry, channels));
        let input = Pixels::dense(&input[image * image_len..], geometry.input, channels);
        for (index, group) in groups.iter().enumerate() {
            let mut output = PixelsMut::new(&mut output.data[index * outputs..], output.size, outputs, shape[3]);
            let mut kept = KeptRows::new(geometry, channels, &mut scratch);
            kernels::conv(geometry, group, input, epilogue.clamp, first_row, &mut output, &mut kept);
        }
    });
}

/// Most floats of a ring of input rows, 1 GiB.
const MAX_SCRATCH: usize = 1 << 28;

/// Refuses a window whose dilation or padding would need absurd scratch.
fn check_scratch(operation: &'static str, window: &Window, len: usize) -> Result<()> {
    if len > MAX_SCRATCH {
        let expected = format_args!("padding and dilation that need at most {MAX_SCRATCH} floats of input rows");
        return Err(Error::invalid(operation, "window", format_args!("{window:?}"), expected));
    }
    Ok(())
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
                "[{kernel_h}, {kernel_w}, I, O] with I dividing the input's {c} channels and O a multiple of {c} / I"
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
