//! Dense and grouped convolution in training.
//!
//! Backward, the patches of some rows of outputs are written out: then the gradients are those of a pointwise convolution
//! with a patch per pixel, and the input's is added back from the patches. In a MobileNet this is the stem alone, whose
//! input needs no gradient.

use alloc::vec;
use alloc::vec::Vec;

use ndarray::ArrayView4;

use super::super::Epilogue;
use super::super::conv::conv2d_into;
use super::super::lazy::{GradientSums, Lazy, Moments, apply, mask, moments as moments_of};
use super::product::{Product, outer};
use super::{Backward, Part, applied, combined, gather, zeroed};
use crate::kernels::{BLOCK, columns};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Tensor, Window};

/// Elements of the patches of a piece: a quarter of a second-level cache.
const PIECE: usize = 64 * 1024;

/// Most copies of the weight's gradient, as for pointwise convolutions.
const MOST_TASKS: usize = 16;

/// Forward with `weight [KH, KW, I, O]`; adds the output's moments if asked for.
///
/// # Errors
///
/// If shapes do not fit.
pub fn conv_forward<T: Element>(
    window: &Window,
    input: Lazy<'_, T>,
    weight: ArrayView4<'_, T>,
    bias: Option<&[T]>,
    output: &mut Tensor<T>,
    moments: Option<&mut Moments>,
    runtime: &Runtime,
) -> Result<()> {
    let epilogue = Epilogue { bias, ..Epilogue::default() };
    if input.affine.is_some() {
        let mut values = Tensor::zeros(input.map.shape())?;
        apply(input, &mut values, runtime)?;
        conv2d_into(&values, weight, window, epilogue, output, runtime)?;
    } else {
        conv2d_into(input.map, weight, window, epilogue, output, runtime)?;
    }
    if let Some(moments) = moments {
        moments.join(&moments_of(output, runtime));
    }
    Ok(())
}

/// Both gradients; returns the sums of the input's if the input is lazy and its gradient wanted.
///
/// # Errors
///
/// If shapes do not fit.
pub fn conv_backward<T: Element>(
    geometry: &Conv2dGeometry,
    groups: usize,
    work: Backward<'_, T>,
    runtime: &Runtime,
) -> Result<Option<GradientSums>> {
    let ([images, h, w, inputs], outputs) = (work.input.map.shape(), work.d_output.map.shape()[3]);
    if [h, w] != geometry.input || groups == 0 || inputs % groups != 0 || outputs % groups != 0 || outputs == 0 {
        let expected = format_args!("a map of {:?} and channels that {groups} groups divide", geometry.input);
        return Err(Error::shape("conv_backward", "input", &work.input.map.shape(), expected));
    }
    let shape = [images, geometry.output[0], geometry.output[1], outputs];
    work.check("conv_backward", shape, geometry.taps() * (inputs / groups) * outputs)?;
    let Backward { input, d_output, weight, d_weight, d_bias, mut d_input } = work;
    let size = GroupSize { depth: geometry.taps() * (inputs / groups), outputs: outputs / groups };
    let pitch = size.outputs.next_multiple_of(BLOCK);
    let [input_len, output_len] = [geometry.input_pixels() * inputs, geometry.output_pixels() * outputs];
    let products_len = if d_input.is_some() { groups } else { 0 };
    let matrices: Vec<_> = (0..products_len).map(|group| size.matrix(weight, group, outputs)).collect();
    let products: Vec<_> =
        matrices.iter().map(|matrix| Product::transposed(matrix, [size.depth, size.outputs], runtime)).collect();

    let tasks = images.clamp(1, MOST_TASKS);
    let per_task = images.div_ceil(tasks);
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let mut d_inputs = d_input.as_mut().map(|map| map.as_mut_slice().chunks_mut(per_task * input_len));
    let level = runtime.simd_level();
    let mut parts = runtime.scratch::<Vec<Part<T>>>();
    let parts = Part::some(&mut parts, images.div_ceil(per_task));
    let work: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.sweep(work, |scratch: &mut [Vec<T>; 5], (task, (part, mut d_input))| {
        part.start([weight_len * groups * size.depth * pitch, bias_len * outputs, 0]);
        let [whole, gradients, group_gradients, patches, d_patches] = scratch;
        if let Some(d_input) = &mut d_input {
            d_input.fill(T::zero());
        }
        for image in task * per_task..images.min((task + 1) * per_task) {
            let map = applied(level, input, [image * input_len, input_len], whole);
            let rows = (PIECE / (geometry.output[1] * size.depth)).clamp(1, geometry.output[0]);
            for first in (0..geometry.output[0]).step_by(rows) {
                let rows = rows.min(geometry.output[0] - first);
                let pixels = rows * geometry.output[1];
                let start = image * output_len + first * geometry.output[1] * outputs;
                let dense_pitch = if groups == 1 { pitch } else { outputs };
                let gradient = combined(level, d_output, [start, pixels * outputs], dense_pitch, gradients);
                if bias_len > 0 {
                    let mut sums = vec![T::zero(); outputs];
                    columns::sum(level, gradient, dense_pitch, &mut sums);
                    part.d_bias.iter_mut().zip(sums).for_each(|(to, from)| *to += Element::to_f64(from));
                }
                for group in 0..groups {
                    let gradient =
                        if groups == 1 { gradient } else { size.columns(gradient, group, outputs, group_gradients) };
                    let at = Piece { geometry, inputs, group_inputs: inputs / groups, group, first };
                    if weight_len > 0 {
                        zeroed(patches, pixels * size.depth);
                        at.gather(map, patches);
                        let d_weight = &mut part.d_weight[group * size.depth * pitch..][..size.depth * pitch];
                        outer(level, (patches, size.depth), (gradient, size.outputs), d_weight);
                    }
                    if let (Some(d_input), Some(product)) = (&mut d_input, products.get(group)) {
                        zeroed(d_patches, pixels * size.depth);
                        product.rows(gradient, pitch, d_patches);
                        at.scatter(d_patches, &mut d_input[(image - task * per_task) * input_len..][..input_len]);
                    }
                }
            }
        }
    });
    gather(parts, [1; 2], None, None, d_bias);
    if let Some(d_weight) = d_weight {
        for part in parts {
            size.add(&part.d_weight, pitch, d_weight, outputs);
        }
    }
    match (d_input, input.affine) {
        (Some(d_input), Some(affine)) => mask(input, affine, d_input, runtime).map(Some),
        _ => Ok(None),
    }
}

/// Patch and outputs of a group.
struct GroupSize {
    depth: usize,
    outputs: usize,
}

impl GroupSize {
    /// The group's columns of `weight [depth, O]`.
    fn matrix<T: Element>(&self, weight: &[T], group: usize, outputs: usize) -> Vec<T> {
        weight.chunks_exact(outputs).flat_map(|row| &row[group * self.outputs..][..self.outputs]).copied().collect()
    }

    /// The group's columns of a gradient `[pixels, O]`, with pixels whole blocks apart.
    fn columns<'s, T: Element>(
        &self,
        gradient: &[T],
        group: usize,
        outputs: usize,
        scratch: &'s mut Vec<T>,
    ) -> &'s [T] {
        let pitch = self.outputs.next_multiple_of(BLOCK);
        zeroed(scratch, gradient.len() / outputs * pitch);
        for (to, from) in scratch.chunks_exact_mut(pitch).zip(gradient.chunks_exact(outputs)) {
            to[..self.outputs].copy_from_slice(&from[group * self.outputs..][..self.outputs]);
        }
        scratch
    }

    /// Adds gradients of the groups' matrices to that of the weight.
    fn add<T: Element>(&self, parts: &[T], pitch: usize, d_weight: &mut [T], outputs: usize) {
        for (group, part) in parts.chunks_exact(self.depth * pitch).enumerate() {
            for (to, from) in d_weight.chunks_exact_mut(outputs).zip(part.chunks_exact(pitch)) {
                for (to, from) in to[group * self.outputs..][..self.outputs].iter_mut().zip(from) {
                    *to += *from;
                }
            }
        }
    }
}

/// Some rows of one group's patches.
struct Piece<'a> {
    geometry: &'a Conv2dGeometry,
    inputs: usize,
    group_inputs: usize,
    group: usize,
    first: usize,
}

impl Piece<'_> {
    /// Calls `work(patch, input, count)` with where elements that follow each other are in the patches and in the map: the
    /// channels of a tap, or of all taps of a kernel row if they are neighbours.
    fn for_each_run(&self, patches: usize, mut work: impl FnMut(usize, usize, usize)) {
        let (g, width) = (self.geometry, self.geometry.output[1]);
        let depth = g.taps() * self.group_inputs;
        let neighbours = g.dilation[1] == 1 && self.group_inputs == self.inputs;
        let taps = if neighbours { g.kernel[1] } else { 1 };
        for row_of_patches in 0..patches / (depth * width) {
            for i in 0..g.kernel[0] {
                let Some(row) = g.source(0, self.first + row_of_patches, i) else { continue };
                for column in 0..width {
                    let patch = (row_of_patches * width + column) * depth + i * g.kernel[1] * self.group_inputs;
                    for j in (0..g.kernel[1]).step_by(taps) {
                        let left = (column * g.stride[1] + j * g.dilation[1]).cast_signed() - g.before[1].cast_signed();
                        let end = (left + taps.cast_signed()).min(g.input[1].cast_signed());
                        let (start, skipped) = (left.max(0).cast_unsigned(), (-left).max(0).cast_unsigned());
                        if end <= start.cast_signed() {
                            continue;
                        }
                        let patch = patch + (j + skipped) * self.group_inputs;
                        let input = (row * g.input[1] + start) * self.inputs + self.group * self.group_inputs;
                        work(patch, input, (end.cast_unsigned() - start) * self.group_inputs);
                    }
                }
            }
        }
    }

    fn gather<T: Element>(&self, map: &[T], patches: &mut [T]) {
        self.for_each_run(patches.len(), |patch, input, count| {
            for (to, from) in patches[patch..][..count].iter_mut().zip(&map[input..]) {
                *to = *from;
            }
        });
    }

    fn scatter<T: Element>(&self, d_patches: &[T], d_input: &mut [T]) {
        self.for_each_run(d_patches.len(), |patch, input, count| {
            for (to, from) in d_input[input..][..count].iter_mut().zip(&d_patches[patch..]) {
                *to += *from;
            }
        });
    }
}
