//! Depthwise convolution in training.
//!
//! For `f32`, one image and one block of 16 channels at a time: the block is copied into a plane with a border of zeros,
//! normalised and activated on the way, and what is computed from it is copied back. Kernels that are not made for that
//! (`f64`, a channel multiplier, huge windows) run the plain loops over applied maps.

use alloc::vec;
use alloc::vec::Vec;

use super::super::lazy::{
    Affine, GradientSums, Lazy, LazyGradient, Moments, apply, combine, mask, moments as moments_of,
};
use super::{Backward, Part, check_forward, gather};
use crate::kernels::{
    self, BLOCK, BlockOf, Clamp, MOST_TAPS, PackedDepthwise, PaddedRows, Pixels, PixelsMut, Plane, Strides, columns,
    reference,
};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Tensor};

/// Where blocks of channels start.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(BLOCK).map(move |first| (first, BLOCK.min(channels - first)))
}

fn has_planes(geometry: &Conv2dGeometry, inputs: usize, outputs: usize) -> bool {
    inputs == outputs && geometry.kernel.iter().all(|&taps| taps <= MOST_TAPS)
}

/// Copies a dense plane back into `lanes` channels of a map.
fn spread(plane: &[[f32; BLOCK]], map: &mut [f32], channels: usize, (first, lanes): (usize, usize)) {
    if lanes == BLOCK {
        for (to, from) in map[first..].chunks_mut(channels).zip(plane) {
            to[..BLOCK].copy_from_slice(from);
        }
    } else {
        for (to, from) in map[first..].chunks_mut(channels).zip(plane) {
            to[..lanes].copy_from_slice(&from[..lanes]);
        }
    }
}

/// Refuses a map that the geometry is not of, and outputs that are not a multiple of the inputs.
fn check_geometry(
    operation: &'static str,
    geometry: &Conv2dGeometry,
    map: [usize; 2],
    [inputs, outputs]: [usize; 2],
) -> Result<()> {
    if map != geometry.input || inputs == 0 || outputs == 0 || outputs % inputs != 0 {
        let [h, w] = geometry.input;
        let expected = format_args!("{h}, {w} and channels that divide {outputs}");
        return Err(Error::shape(operation, "map", &[map[0], map[1], inputs], expected));
    }
    Ok(())
}

/// Forward with `weight [KH, KW, C, M]`; adds the output's moments if asked for.
///
/// # Errors
///
/// If shapes do not fit.
pub fn depthwise_forward<T: Element>(
    geometry: &Conv2dGeometry,
    input: Lazy<'_, T>,
    weight: &[T],
    bias: Option<&[T]>,
    output: &mut Tensor<T>,
    moments: Option<&mut Moments>,
    runtime: &Runtime,
) -> Result<()> {
    let ([n, h, w, inputs], outputs) = (input.map.shape(), output.shape()[3]);
    check_geometry("depthwise_forward", geometry, [h, w], [inputs, outputs])?;
    let shapes = [output.shape(), [n, geometry.output[0], geometry.output[1], outputs]];
    let weight_len = [weight.len(), geometry.taps() * outputs];
    check_forward("depthwise_forward", input, weight_len, bias, shapes, moments.as_deref())?;
    let lengths = [inputs * geometry.input_pixels(), outputs * geometry.output_pixels()];
    if has_planes(geometry, inputs, outputs)
        && let (Some(map), Some(weight), Some(output)) =
            (T::as_f32(input.map.as_slice()), T::as_f32(weight), T::as_f32_mut(output.as_mut_slice()))
    {
        let affine = input.affine.map(in_f32);
        let forward = Forward { geometry, channels: inputs, affine, weight, bias: bias.and_then(T::as_f32), runtime };
        forward.run(map, output, moments);
        return Ok(());
    }
    let mut values = Tensor::zeros(input.map.shape())?;
    apply(input, &mut values, runtime)?;
    let images: Vec<_> = output.as_mut_slice().chunks_mut(lengths[1]).enumerate().collect();
    runtime.for_each(
        images,
        || (),
        |(), (image, output)| {
            let input = Pixels::dense(&values.as_slice()[image * lengths[0]..], geometry.input, inputs);
            let mut output = PixelsMut::dense(output, geometry.output, outputs);
            reference::depthwise(geometry, input, weight, bias, Clamp::none(), 0, &mut output);
        },
    );
    if let Some(moments) = moments {
        moments.join(&moments_of(output, runtime));
    }
    Ok(())
}

fn in_f32<T: Element>(affine: &Affine<T>) -> Affine<f32> {
    let values = |values: &Vec<T>| T::as_f32(values).expect("f32 as the map").to_vec();
    let limit = |value: T| T::as_f32(&[value]).expect("f32 as the map")[0];
    Affine {
        scale: values(&affine.scale),
        shift: values(&affine.shift),
        center: values(&affine.center),
        clamp: Clamp { low: limit(affine.clamp.low), high: limit(affine.clamp.high) },
    }
}

/// What the images of a forward convolution share.
struct Forward<'a> {
    geometry: &'a Conv2dGeometry,
    channels: usize,
    affine: Option<Affine<f32>>,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    runtime: &'a Runtime,
}

impl Forward<'_> {
    fn run(&self, map: &[f32], output: &mut [f32], moments: Option<&mut Moments>) {
        let (g, channels) = (self.geometry, self.channels);
        let [input_len, output_len] = [g.input_pixels() * channels, g.output_pixels() * channels];
        let mut packed = vec![0.0; PackedDepthwise::len(g.taps(), channels)];
        let _ = PackedDepthwise::pack_blocked(g.taps(), channels, self.weight, self.bias, &mut packed);
        let (row, level) = (g.padded_width() * BLOCK, self.runtime.simd_level());
        let scratch = || [vec![0.0; (g.input[0] + 1) * row], vec![0.0; g.output_pixels() * BLOCK]];
        let images = output.len() / output_len;
        let mut parts = vec![0.0; if moments.is_some() { images * 2 * channels } else { 0 }];
        let mut part = parts.chunks_exact_mut(2 * channels);
        let work: Vec<_> =
            output.chunks_exact_mut(output_len).map(|output| (output, part.next())).enumerate().collect();
        self.runtime.for_each(work, scratch, |[rows, made], (image, (output, mut part))| {
            let made = &mut made[..];
            let map = &map[image * input_len..][..input_len];
            for block in blocks(channels) {
                let (first, lanes) = block;
                let plane = &mut rows.as_chunks_mut().0[g.before[1]..];
                let from = BlockOf { size: g.input, channels, first, lanes };
                kernels::fill_plane(level, from, self.affine.as_ref().map(Affine::lend), map, plane, g.padded_width());
                let weights = &packed[first * (g.taps() + 1)..];
                let weights = PackedDepthwise::from_packed_blocked(g.taps(), BLOCK, weights);
                let strides = Strides { row, pixel: BLOCK, block: BLOCK };
                let input = PaddedRows { data: rows, places: g.input[0], strides };
                let strides = Strides { row: g.output[1] * BLOCK, pixel: BLOCK, block: BLOCK };
                let mut result = PixelsMut::strided(made, g.output, BLOCK, strides);
                kernels::depthwise_in_place(level, g, &weights, input, Clamp::none(), 0, &mut result);
                spread(made.as_chunks().0, output, channels, block);
                if let Some(part) = &mut part {
                    let mut of_block = [[0.0; BLOCK]; 2];
                    let [block_mean, block_squares] = &mut of_block;
                    columns::moments(level, made, block_mean, block_squares);
                    for (to, from) in part.chunks_exact_mut(channels).zip(&of_block) {
                        to[first..][..lanes].copy_from_slice(&from[..lanes]);
                    }
                }
            }
        });
        if let Some(moments) = moments {
            for part in parts.chunks_exact(2 * channels) {
                let (mean, squares) = part.split_at(channels);
                moments.merge(g.output_pixels(), mean, squares);
            }
        }
    }
}

/// Both gradients; returns the sums of the input's if the input is lazy and its gradient wanted.
///
/// # Errors
///
/// If shapes do not fit.
pub fn depthwise_backward<T: Element>(
    geometry: &Conv2dGeometry,
    work: Backward<'_, T>,
    runtime: &Runtime,
) -> Result<Option<GradientSums>> {
    let ([n, h, w, inputs], outputs) = (work.input.map.shape(), work.d_output.map.shape()[3]);
    check_geometry("depthwise_backward", geometry, [h, w], [inputs, outputs])?;
    let shape = [n, geometry.output[0], geometry.output[1], outputs];
    work.check("depthwise_backward", shape, geometry.taps() * outputs)?;
    if T::as_f32(work.weight).is_some() && has_planes(geometry, inputs, outputs) {
        return Ok(planes_backward(geometry, work, runtime));
    }
    let Backward { input, d_output, weight, d_weight, d_bias, mut d_input } = work;
    let [input_len, output_len] = [geometry.input_pixels() * inputs, geometry.output_pixels() * outputs];
    let mut gradient = Tensor::zeros(d_output.map.shape())?;
    combine(d_output, &mut gradient, runtime)?;
    let mut values = Tensor::zeros(input.map.shape())?;
    apply(input, &mut values, runtime)?;
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let mut parts: Vec<_> = gradient
        .as_slice()
        .chunks_exact(output_len)
        .map(|_| Part::<T>::new(weight_len * weight.len(), bias_len * outputs, inputs))
        .collect();
    let mut d_inputs = d_input.as_mut().map(|map| map.as_mut_slice().chunks_exact_mut(input_len));
    let images: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.for_each(
        images,
        || (),
        |(), (image, (part, d_input))| {
            let gradient = &gradient.as_slice()[image * output_len..][..output_len];
            let d_output = Pixels::dense(gradient, geometry.output, outputs);
            if weight_len > 0 {
                let input = Pixels::dense(&values.as_slice()[image * input_len..], geometry.input, inputs);
                reference::depthwise_weight_gradient(geometry, input, d_output, &mut part.d_weight);
            }
            if bias_len > 0 {
                for (at, value) in gradient.iter().enumerate() {
                    part.d_bias[at % outputs] += Element::to_f64(*value);
                }
            }
            if let Some(d_input) = d_input {
                d_input.fill(T::zero());
                let mut d_input = PixelsMut::dense(d_input, geometry.input, inputs);
                reference::depthwise_input_gradient(geometry, d_output, weight, &mut d_input);
            }
        },
    );
    gather(&parts, [weight.len(); 2], None, d_weight, d_bias);
    match (d_input, input.affine) {
        (Some(d_input), Some(affine)) => mask(input, affine, d_input, runtime).map(Some),
        _ => Ok(None),
    }
}

/// What the images of a backward convolution share.
struct Planes<'a> {
    geometry: &'a Conv2dGeometry,
    channels: usize,
    input: &'a [f32],
    affine: Option<Affine<f32>>,
    d_output: &'a [f32],
    through: Option<(&'a [f32], [&'a [f32]; 3])>,
    /// In blocks: the taps of each.
    weight: Vec<[f32; BLOCK]>,
    runtime: &'a Runtime,
}

fn planes_backward<T: Element>(g: &Conv2dGeometry, work: Backward<'_, T>, runtime: &Runtime) -> Option<GradientSums> {
    fn f32s<T: Element>(values: &[T]) -> &[f32] {
        T::as_f32(values).expect("f32 as the weight")
    }
    let Backward { input, d_output, weight, d_weight, d_bias, d_input } = work;
    let channels = input.map.shape()[3];
    let mut blocked = Vec::with_capacity(g.taps() * channels.div_ceil(BLOCK));
    for (first, lanes) in blocks(channels) {
        for tap in f32s(weight).chunks_exact(channels) {
            let mut block = [0.0; BLOCK];
            block[..lanes].copy_from_slice(&tap[first..][..lanes]);
            blocked.push(block);
        }
    }
    let LazyGradient { map, through } = d_output;
    let planes = Planes {
        geometry: g,
        channels,
        input: f32s(input.map.as_slice()),
        affine: input.affine.map(in_f32),
        d_output: f32s(map.as_slice()),
        through: through.map(|(map, constants)| (f32s(map.as_slice()), constants.map(f32s))),
        weight: blocked,
        runtime,
    };
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let pitch = channels.next_multiple_of(BLOCK);
    let [input_len, output_len] = [g.input_pixels() * channels, g.output_pixels() * channels];
    let mut parts: Vec<_> = (0..planes.d_output.len() / output_len)
        .map(|_| Part::<T>::new(weight_len * g.taps() * pitch, bias_len * channels, channels))
        .collect();
    let affine = input.affine.filter(|_| d_input.is_some());
    let mut d_inputs =
        d_input.map(|map| T::as_f32_mut(map.as_mut_slice()).expect("f32 as the weight").chunks_exact_mut(input_len));
    let work: Vec<_> = parts
        .iter_mut()
        .map(|part| {
            let Part { d_weight, d_bias, sums } = part;
            let d_weight = T::as_f32_mut(d_weight).expect("f32 as the weight");
            (d_weight, d_bias, sums, d_inputs.as_mut().and_then(Iterator::next))
        })
        .enumerate()
        .collect();
    runtime.for_each(
        work,
        || planes.scratch(),
        |scratch, (image, (d_weight, d_bias, sums, mut d_input))| {
            for (index, block) in blocks(channels).enumerate() {
                planes.load_gradient(image, block, scratch);
                if weight_len > 0 {
                    planes.weight_gradient(image, block, scratch, d_weight, pitch);
                }
                if bias_len > 0 {
                    let mut part = [0.0; BLOCK];
                    planes.bias_gradient(scratch, &mut part);
                    d_bias[block.0..].iter_mut().zip(part).for_each(|(to, from)| *to += f64::from(from));
                }
                if let Some(d_input) = &mut d_input {
                    planes.input_gradient(image, (index, block), scratch, d_input, sums);
                }
            }
        },
    );
    gather(&parts, [channels, pitch], affine, d_weight, d_bias)
}

/// Planes of one block: the input, the gradient of the output, that of the input.
struct Scratch {
    input: Vec<[f32; BLOCK]>,
    d_output: Vec<[f32; BLOCK]>,
    d_input: Vec<[f32; BLOCK]>,
}

impl Planes<'_> {
    /// Rows and pixels of the input's plane.
    fn input_size(&self) -> [usize; 2] {
        let g = self.geometry;
        let rows = (g.output[0] - 1) * g.stride[0] + (g.kernel[0] - 1) * g.dilation[0] + 1;
        [rows.max(g.before[0] + g.input[0]), g.padded_width()]
    }

    /// Pixels to the left, and of a row of, the gradient's plane.
    fn gradient_width(&self) -> [usize; 2] {
        let [left, right] = kernels::gradient_border(self.geometry);
        [left, left + self.geometry.output[1] + right]
    }

    fn scratch(&self) -> Scratch {
        let g = self.geometry;
        let [rows, width] = self.input_size();
        Scratch {
            input: vec![[0.0; BLOCK]; rows * width],
            d_output: vec![[0.0; BLOCK]; g.output[0] * self.gradient_width()[1]],
            d_input: vec![[0.0; BLOCK]; g.input_pixels()],
        }
    }

    fn block(&self, size: [usize; 2], (first, lanes): (usize, usize)) -> BlockOf {
        BlockOf { size, channels: self.channels, first, lanes }
    }

    fn load_gradient(&self, image: usize, block: (usize, usize), scratch: &mut Scratch) {
        let (g, level) = (self.geometry, self.runtime.simd_level());
        let ([left, width], len) = (self.gradient_width(), g.output_pixels() * self.channels);
        let plane = &mut scratch.d_output[left..];
        let (block, of_image) = (self.block(g.output, block), image * len..(image + 1) * len);
        let gradient = &self.d_output[of_image.clone()];
        match self.through {
            Some((input, constants)) => {
                kernels::combine_plane(level, block, constants, [gradient, &input[of_image]], plane, width);
            }
            None => kernels::fill_plane(level, block, None, gradient, plane, width),
        }
    }

    fn d_output<'s>(&self, scratch: &'s [[f32; BLOCK]]) -> Plane<'s> {
        let [left, width] = self.gradient_width();
        Plane { data: scratch, width, before: [0, left] }
    }

    fn weight_gradient(
        &self,
        image: usize,
        block: (usize, usize),
        scratch: &mut Scratch,
        d_weight: &mut [f32],
        pitch: usize,
    ) {
        let (g, level) = (self.geometry, self.runtime.simd_level());
        let [_, width] = self.input_size();
        let map = &self.input[image * g.input_pixels() * self.channels..];
        let plane = &mut scratch.input[g.before[0] * width + g.before[1]..];
        let affine = self.affine.as_ref().map(Affine::lend);
        kernels::fill_plane(level, self.block(g.input, block), affine, map, plane, width);
        let input = Plane { data: &scratch.input, width, before: g.before };
        let mut sums = vec![[0.0; BLOCK]; g.taps()];
        kernels::depthwise_weight_gradient(level, g, input, self.d_output(&scratch.d_output), &mut sums);
        for (to, from) in d_weight.chunks_exact_mut(pitch).zip(&sums) {
            to[block.0..][..BLOCK].copy_from_slice(from);
        }
    }

    fn bias_gradient(&self, scratch: &Scratch, sums: &mut [f32; BLOCK]) {
        // The border is zeros.
        columns::sum(self.runtime.simd_level(), scratch.d_output.as_flattened(), BLOCK, sums);
    }

    fn input_gradient(
        &self,
        image: usize,
        (index, block): (usize, (usize, usize)),
        scratch: &mut Scratch,
        d_input: &mut [f32],
        sums: &mut GradientSums,
    ) {
        let (g, channels, level) = (self.geometry, self.channels, self.runtime.simd_level());
        let weight = &self.weight[index * g.taps()..][..g.taps()];
        kernels::depthwise_input_gradient(level, g, self.d_output(&scratch.d_output), weight, &mut scratch.d_input);
        let Some(affine) = &self.affine else {
            spread(&scratch.d_input, d_input, channels, block);
            return;
        };
        let input = &self.input[image * g.input_pixels() * channels..];
        let planes = (&*scratch.d_input, input);
        let block = self.block(g.input, block);
        let part = kernels::mask_plane(level, block, affine.lend(), &affine.center, planes, d_input);
        sums.add(block.first, [&part[0][..block.lanes], &part[1][..block.lanes]]);
    }
}
