//! Depthwise convolution in training.
//!
//! For `f32`, a strip of rows and up to 64 blocks of 16 channels at a time: they are copied into planes with a border
//! of zeros, normalised and activated on the way, and what is computed from them is copied back. Kernels that are not
//! made for that (`f64`, a channel multiplier, huge windows) run the plain loops over applied maps.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::super::lazy::{
    Affine, GradientSums, Lazy, LazyGradient, Moments, apply, combine, mask, moments as moments_of,
};
use super::strip::{Band, BandShape, finished_rows, group_blocks, groups, halo, input_rows, strip_geometry, strips};
use super::{Backward, Part, check_forward, gather};
use crate::aligned::Aligned;
use crate::kernels::{
    self, BLOCK, Clamp, GroupOf, MOST_TAPS, PackedDepthwise, PaddedRows, Pixels, PixelsMut, Strides, columns, reference,
};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Tensor};

fn has_planes(geometry: &Conv2dGeometry, inputs: usize, outputs: usize) -> bool {
    inputs == outputs && geometry.kernel.iter().all(|&taps| taps <= MOST_TAPS)
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
        let affine = input.affine.map(affine_in_blocks);
        let forward = Forward { geometry, channels: inputs, affine, weight, bias: bias.and_then(T::as_f32), runtime };
        forward.run(map, output, moments);
        return Ok(());
    }
    let mut values = Tensor::zeros(input.map.shape())?;
    apply(input, &mut values, runtime)?;
    let images: Vec<_> = output.as_mut_slice().chunks_mut(lengths[1]).enumerate().collect();
    runtime.sweep(images, |(): &mut (), (image, output)| {
        let input = Pixels::dense(&values.as_slice()[image * lengths[0]..], geometry.input, inputs);
        let mut output = PixelsMut::dense(output, geometry.output, outputs);
        reference::depthwise(geometry, input, weight, bias, Clamp::none(), 0, &mut output);
    });
    if let Some(moments) = moments {
        moments.join(&moments_of(output, runtime));
    }
    Ok(())
}

fn f32s<T: Element>(values: &[T]) -> &[f32] {
    T::as_f32(values).expect("f32 as the map")
}

/// Per-channel values in whole blocks.
fn in_blocks<T: Element>(values: &[T]) -> Vec<f32> {
    let mut blocks = f32s(values).to_vec();
    blocks.resize(values.len().next_multiple_of(BLOCK), 0.0);
    blocks
}

fn affine_in_blocks<T: Element>(affine: &Affine<T>) -> Affine<f32> {
    let limit = |value: T| f32s(&[value])[0];
    Affine {
        scale: in_blocks(&affine.scale),
        shift: in_blocks(&affine.shift),
        center: in_blocks(&affine.center),
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

/// The input of a strip, with the padding's zeros, its output, and the moments of that.
#[derive(Default)]
struct ForwardScratch {
    input: Band,
    output: Aligned<f32>,
    moments: [Aligned<f32>; 2],
}

/// The first `count` blocks of channels of this memory, whatever they are.
fn blocks_mut(memory: &mut Aligned<f32>, count: usize) -> &mut [[f32; BLOCK]] {
    memory.resize(count * BLOCK).as_chunks_mut().0
}

/// Room for the input of a strip.
fn input_band(g: &Conv2dGeometry, blocks: usize, strip: &Range<usize>) -> BandShape {
    BandShape {
        blocks,
        most: input_rows(g, strip).len(),
        left: g.before[1],
        inner: g.input[1],
        width: g.padded_width(),
    }
}

impl Forward<'_> {
    fn run(&self, map: &[f32], output: &mut [f32], moments: Option<&mut Moments>) {
        let (g, channels) = (self.geometry, self.channels);
        let [input_len, output_len] = [g.input_pixels() * channels, g.output_pixels() * channels];
        let mut packed = Aligned::new(PackedDepthwise::len(g.taps(), channels));
        let _ = PackedDepthwise::pack_blocked(g.taps(), channels, self.weight, self.bias, &mut packed);
        // Mean and squares of each image's strips.
        let (images, strips_len) = (output.len() / output_len, strips(g, channels).len() * 2 * channels);
        let mut parts = vec![0.0; if moments.is_some() { images * strips_len } else { 0 }];
        let mut part = parts.chunks_exact_mut(strips_len);
        let work: Vec<_> =
            output.chunks_exact_mut(output_len).map(|output| (output, part.next())).enumerate().collect();
        self.runtime.sweep(work, |scratch: &mut ForwardScratch, (image, (output, part))| {
            self.image(&packed, &map[image * input_len..][..input_len], scratch, output, part);
        });
        let Some(moments) = moments else { return };
        for part in parts.chunks_exact(strips_len) {
            for (strip, part) in strips(g, channels).zip(part.chunks_exact(2 * channels)) {
                let (mean, squares) = part.split_at(channels);
                moments.merge(strip.len() * g.output[1], mean, squares);
            }
        }
    }

    fn image(
        &self,
        packed: &[f32],
        map: &[f32],
        scratch: &mut ForwardScratch,
        output: &mut [f32],
        mut part: Option<&mut [f32]>,
    ) {
        let (g, channels, level) = (self.geometry, self.channels, self.runtime.simd_level());
        let affine = self.affine.as_ref().map(Affine::lend);
        let ForwardScratch { input, output: made, moments } = scratch;
        let most = strips(g, channels).next().unwrap_or_default();
        let blocks = group_blocks(channels);
        input.start(input_band(g, blocks, &most));
        let block_len = most.len() * g.output[1];
        let made = blocks_mut(made, blocks * block_len);
        let [mean, squares] = moments.each_mut().map(|values| blocks_mut(values, blocks));
        for (first, lanes) in groups(channels) {
            input.restart();
            let of_map = GroupOf { size: g.input, channels, first, lanes, row: 0, block: 0 };
            for (index, strip) in strips(g, channels).enumerate() {
                let rows = input_rows(g, &strip);
                input.advance(rows.clone(), of_map, |group, rows, plane| {
                    let map = &map[rows.start * g.input[1] * channels..];
                    kernels::fill_plane(level, group, affine, map, plane);
                });
                // All rows are there, those of the padding too.
                let input_size = [rows.len(), g.input[1]];
                let size = [strip.len(), g.output[1]];
                let part_geometry = Conv2dGeometry { input: input_size, output: size, before: [0, g.before[1]], ..*g };
                for (block, made) in made.chunks_exact_mut(block_len).take(lanes.div_ceil(BLOCK)).enumerate() {
                    let weights = &packed[(first + block * BLOCK) * (g.taps() + 1)..];
                    let weights = PackedDepthwise::from_packed_blocked(g.taps(), BLOCK, weights);
                    let plane = input.plane(block, 0);
                    let strides = Strides { row: plane.width * BLOCK, pixel: BLOCK, block: BLOCK };
                    let rows = PaddedRows { data: plane.data.as_flattened(), places: rows.len(), strides };
                    let strides = Strides { row: g.output[1] * BLOCK, pixel: BLOCK, block: BLOCK };
                    let made = &mut made.as_flattened_mut()[..size[0] * size[1] * BLOCK];
                    let mut result = PixelsMut::strided(made, size, BLOCK, strides);
                    kernels::depthwise_in_place(level, &part_geometry, &weights, rows, Clamp::none(), 0, &mut result);
                }
                let group = GroupOf { size, row: size[1], block: block_len, ..of_map };
                let output = &mut output[strip.start * g.output[1] * channels..];
                let wanted = part.is_some().then_some([&mut *mean, &mut *squares]);
                kernels::spread_plane(level, group, made, output, wanted);
                if let Some(part) = &mut part {
                    let part = &mut part[index * 2 * channels..][..2 * channels];
                    for (to, from) in part.chunks_exact_mut(channels).zip([&*mean, &*squares]) {
                        to[first..][..lanes].copy_from_slice(&from.as_flattened()[..lanes]);
                    }
                }
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
    let mut d_inputs = d_input.as_mut().map(|map| map.as_mut_slice().chunks_exact_mut(input_len));
    let mut parts = runtime.scratch::<Vec<Part<T>>>();
    let parts = Part::some(&mut parts, gradient.as_slice().len() / output_len);
    let images: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.sweep(images, |(): &mut (), (image, (part, d_input))| {
        part.start([weight_len * weight.len(), bias_len * outputs, inputs]);
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
    });
    gather(parts, [weight.len(); 2], None, d_weight, d_bias);
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
    /// As [`LazyGradient::through`], with constants in whole blocks.
    through: Option<(&'a [f32], [Vec<f32>; 3])>,
    /// In blocks: the taps of each.
    weight: Vec<[f32; BLOCK]>,
    runtime: &'a Runtime,
}

fn planes_backward<T: Element>(g: &Conv2dGeometry, work: Backward<'_, T>, runtime: &Runtime) -> Option<GradientSums> {
    let Backward { input, d_output, weight, d_weight, d_bias, d_input } = work;
    let channels = input.map.shape()[3];
    let mut blocked = Vec::with_capacity(g.taps() * channels.div_ceil(BLOCK));
    for first in (0..channels).step_by(BLOCK) {
        let lanes = BLOCK.min(channels - first);
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
        affine: input.affine.map(affine_in_blocks),
        d_output: f32s(map.as_slice()),
        through: through.map(|(map, constants)| (f32s(map.as_slice()), constants.map(in_blocks))),
        weight: blocked,
        runtime,
    };
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let pitch = channels.next_multiple_of(BLOCK);
    let [input_len, output_len] = [g.input_pixels() * channels, g.output_pixels() * channels];
    let affine = input.affine.filter(|_| d_input.is_some());
    let mut d_inputs =
        d_input.map(|map| T::as_f32_mut(map.as_mut_slice()).expect("f32 as the weight").chunks_exact_mut(input_len));
    let mut parts = runtime.scratch::<Vec<Part<T>>>();
    let parts = Part::some(&mut parts, planes.d_output.len() / output_len);
    let work: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.sweep(work, |scratch: &mut BackwardScratch, (image, (part, d_input))| {
        part.start([weight_len * g.taps() * pitch, bias_len * channels, channels]);
        let Part { d_weight, d_bias, sums } = part;
        let d_weight = T::as_f32_mut(d_weight).expect("f32 as the weight");
        planes.image(image, scratch, ImageGradients { d_weight, pitch, d_bias, d_input, sums });
    });
    gather(parts, [channels, pitch], affine, d_weight, d_bias)
}

/// Of a strip: the input and the gradient of the output, with the padding's zeros; the gradient of the input, its sums,
/// and each block's gradient of the weight.
#[derive(Default)]
struct BackwardScratch {
    input: Band,
    d_output: Band,
    d_input: Aligned<f32>,
    sums: [Aligned<f32>; 2],
    d_weight: Aligned<f32>,
}

/// What an image adds to; empty where it is not wanted.
struct ImageGradients<'a> {
    d_weight: &'a mut [f32],
    pitch: usize,
    d_bias: &'a mut [f64],
    d_input: Option<&'a mut [f32]>,
    sums: &'a mut GradientSums,
}

impl Planes<'_> {
    fn image(&self, image: usize, scratch: &mut BackwardScratch, mut gradients: ImageGradients<'_>) {
        let (g, channels, blocks) = (self.geometry, self.channels, group_blocks(self.channels));
        let [left, right] = kernels::gradient_border(g);
        let (most, halo) = (strips(g, channels).next().unwrap_or_default(), halo(g));
        scratch.input.start(input_band(g, blocks, &most));
        let (inner, width) = (g.output[1], left + g.output[1] + right);
        scratch.d_output.start(BandShape { blocks, most: halo + most.len(), left, inner, width });
        for (first, lanes) in groups(channels) {
            scratch.input.restart();
            scratch.d_output.restart();
            scratch.d_weight.zeroed(blocks * g.taps() * BLOCK);
            let of_input = GroupOf { size: g.input, channels, first, lanes, row: 0, block: 0 };
            for strip in strips(g, channels) {
                let rows = strip.start.cast_signed() - halo.cast_signed()..strip.end.cast_signed();
                let of_output = GroupOf { size: g.output, ..of_input };
                scratch.d_output.advance(rows, of_output, |group, rows, plane| {
                    self.fill_gradient(image, group, rows, plane);
                });
                if !gradients.d_weight.is_empty() {
                    self.weight_gradient(image, of_input, &strip, scratch);
                }
                if !gradients.d_bias.is_empty() {
                    self.bias_gradient(of_output, &strip, &scratch.d_output, gradients.d_bias);
                }
                if let Some(d_input) = gradients.d_input.as_deref_mut() {
                    self.input_gradient(image, of_input, &strip, scratch, (d_input, gradients.sums));
                }
            }
            let blocks = (first..first + lanes)
                .step_by(BLOCK)
                .zip(scratch.d_weight.as_chunks::<BLOCK>().0.chunks_exact(g.taps()));
            for (first, sums) in blocks {
                for (to, from) in gradients.d_weight.chunks_exact_mut(gradients.pitch).zip(sums) {
                    to[first..][..BLOCK].copy_from_slice(from);
                }
            }
        }
    }

    fn weight_gradient(&self, image: usize, group: GroupOf, strip: &Range<usize>, scratch: &mut BackwardScratch) {
        let (g, level) = (self.geometry, self.runtime.simd_level());
        scratch.input.advance(input_rows(g, strip), group, |group, rows, plane| {
            let map = &self.input[(image * g.input[0] + rows.start) * g.input[1] * self.channels..];
            kernels::fill_plane(level, group, self.affine.as_ref().map(Affine::lend), map, plane);
        });
        // All rows are there, those of the padding too.
        let geometry = Conv2dGeometry { output: [strip.len(), g.output[1]], before: [0, g.before[1]], ..*g };
        let (d_weight, _) = scratch.d_weight.as_chunks_mut();
        let blocks = d_weight.chunks_exact_mut(g.taps()).take(group.lanes.div_ceil(BLOCK)).enumerate();
        for (block, sums) in blocks {
            let [input, d_output] = [scratch.input.plane(block, 0), scratch.d_output.plane(block, halo(g))];
            kernels::depthwise_weight_gradient(level, &geometry, input, d_output, sums);
        }
    }

    fn bias_gradient(&self, group: GroupOf, strip: &Range<usize>, d_output: &Band, d_bias: &mut [f64]) {
        for block in 0..group.lanes.div_ceil(BLOCK) {
            let plane = d_output.plane(block, 0);
            let rows = &plane.data[halo(self.geometry) * plane.width..][..strip.len() * plane.width];
            let mut sums = [0.0; BLOCK];
            columns::sum(self.runtime.simd_level(), rows.as_flattened(), BLOCK, &mut sums);
            let d_bias = d_bias[group.first + block * BLOCK..].iter_mut();
            d_bias.zip(sums).for_each(|(to, from)| *to += f64::from(from));
        }
    }

    fn input_gradient(
        &self,
        image: usize,
        group: GroupOf,
        strip: &Range<usize>,
        scratch: &mut BackwardScratch,
        (d_input, sums): (&mut [f32], &mut GradientSums),
    ) {
        let (g, level) = (self.geometry, self.runtime.simd_level());
        let finished = finished_rows(g, strip);
        if finished.is_empty() {
            return;
        }
        let geometry = strip_geometry(g, strip, &finished);
        let (block_len, blocks) = (geometry.input_pixels(), group.lanes.div_ceil(BLOCK));
        let BackwardScratch { d_output, d_input: plane, sums: of_strip, .. } = scratch;
        let plane = blocks_mut(plane, blocks * block_len);
        let [sum, spread] = of_strip.each_mut().map(|values| blocks_mut(values, blocks));
        for (block, plane) in plane.chunks_exact_mut(block_len).enumerate() {
            let weight = &self.weight[(group.first / BLOCK + block) * g.taps()..][..g.taps()];
            kernels::depthwise_input_gradient(level, &geometry, d_output.plane(block, halo(g)), weight, plane);
        }
        let group = GroupOf { size: geometry.input, row: g.input[1], block: block_len, ..group };
        let start = finished.start * g.input[1] * self.channels;
        let d_input = &mut d_input[start..];
        let Some(affine) = &self.affine else {
            kernels::spread_plane(level, group, plane, d_input, None);
            return;
        };
        let input = &self.input[image * g.input_pixels() * self.channels + start..];
        let part = [&mut *sum, &mut *spread];
        kernels::mask_plane(level, group, affine.lend(), &affine.center, (plane, input), d_input, part);
        sums.add(group.first, [&*sum, &*spread].map(|values| &values.as_flattened()[..group.lanes]));
    }

    fn fill_gradient(&self, image: usize, group: GroupOf, rows: Range<usize>, plane: &mut [[f32; BLOCK]]) {
        let (g, level) = (self.geometry, self.runtime.simd_level());
        let start = (image * g.output[0] + rows.start) * g.output[1] * self.channels;
        let gradient = &self.d_output[start..];
        match &self.through {
            Some((input, constants)) => {
                let constants = constants.each_ref().map(Vec::as_slice);
                kernels::combine_plane(level, group, constants, [gradient, &input[start..]], plane);
            }
            None => kernels::fill_plane(level, group, None, gradient, plane),
        }
    }
}
