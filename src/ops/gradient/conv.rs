//! Dense and grouped convolution in training.
//!
//! Backward, the patches of some rows of outputs are written out: then the gradients are those of a pointwise
//! convolution with a patch per pixel, and the input's is added back from the patches. In a MobileNet this is the stem
//! alone, whose input needs no gradient.

use alloc::vec::Vec;

use ndarray::ArrayView4;

use super::super::Epilogue;
use super::super::conv::conv2d_into;
use super::super::lazy::{GradientSums, Lazy, LazyGradient, Moments, PIECE, apply, mask, moments as moments_of};
use super::product::{Product, outer};
use super::{Backward, MOST_TASKS, Part, applied, combined, gather, gather_weight};
use crate::aligned::Aligned;
use crate::kernels::{BLOCK, SimdLevel};
use crate::shape::Conv2dGeometry;
use crate::{Element, Error, Result, Runtime, Tensor, Window};

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
    let matrices_len = if d_input.is_some() { groups } else { 0 };
    let matrices: Vec<_> = (0..matrices_len).map(|group| size.matrix(weight, group, outputs)).collect();
    let products =
        matrices.iter().map(|matrix| Product::transposed(matrix, [size.depth, size.outputs], runtime)).collect();
    let level = runtime.simd_level();
    let maps = Maps { geometry, groups, size, channels: [inputs, outputs], input, d_output, products, level };

    let per_task = images.div_ceil(images.clamp(1, MOST_TASKS));
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let lens = [weight_len * groups * size.depth * size.pitch(), bias_len * outputs, 0];
    let image_len = geometry.input_pixels() * inputs;
    let mut d_inputs = d_input.as_mut().map(|map| map.as_mut_slice().chunks_mut(per_task * image_len));
    let mut parts = runtime.scratch::<Vec<Part<T>>>();
    let parts = Part::some(&mut parts, images.div_ceil(per_task));
    let work: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.sweep(work, |scratch: &mut Scratch<T>, (task, (part, d_input))| {
        part.start(lens);
        let mut d_images = d_input.map(|d_input| d_input.chunks_exact_mut(image_len));
        for image in task * per_task..images.min((task + 1) * per_task) {
            maps.image(image, part, d_images.as_mut().and_then(Iterator::next), scratch);
        }
    });
    if let Some(d_weight) = d_weight {
        gather_weight(parts, groups, [size.outputs, size.pitch()], d_weight, runtime);
    }
    gather(parts, [1; 2], None, None, d_bias);
    match (d_input, input.affine) {
        (Some(d_input), Some(affine)) => mask(input, affine, d_input, runtime).map(Some),
        _ => Ok(None),
    }
}

/// What backward works on, and what its tasks share.
struct Maps<'a, T> {
    geometry: &'a Conv2dGeometry,
    groups: usize,
    size: GroupSize,
    /// Of input and output.
    channels: [usize; 2],
    input: Lazy<'a, T>,
    d_output: LazyGradient<'a, T>,
    /// With each group's transposed weight, if the gradient of the input is wanted.
    products: Vec<Product<'a, T>>,
    level: SimdLevel,
}

/// Memory of a task.
#[derive(Default)]
struct Scratch<T> {
    map: Aligned<T>,
    gradient: Aligned<T>,
    group_gradient: Aligned<T>,
    patches: Aligned<T>,
    d_patches: Aligned<T>,
}

impl<T: Element> Maps<'_, T> {
    /// An image's gradients: added to those of the part, in place of what is in `d_input`.
    fn image(&self, image: usize, part: &mut Part<T>, mut d_input: Option<&mut [T]>, scratch: &mut Scratch<T>) {
        let ([height, width], [inputs, outputs]) = (self.geometry.output, self.channels);
        let image_len = self.geometry.input_pixels() * inputs;
        let map = applied(self.level, self.input, [image * image_len, image_len], &mut scratch.map);
        if let Some(d_input) = &mut d_input {
            d_input.fill(T::zero());
        }
        // The patches of a piece have as many elements as a piece of a map.
        let most = (PIECE / (width * self.size.depth)).clamp(1, height);
        for first in (0..height).step_by(most) {
            let row = width * outputs;
            let place = [(image * height + first) * row, most.min(height - first) * row];
            let pitch = if self.groups == 1 { self.size.pitch() } else { outputs };
            let gradient = combined(self.level, self.d_output, place, pitch, &mut scratch.gradient);
            part.add_bias(self.level, gradient, pitch);
            for group in 0..self.groups {
                let gradient = match self.groups {
                    1 => gradient,
                    _ => self.size.columns(gradient, group, outputs, &mut scratch.group_gradient),
                };
                let piece = Piece { geometry: self.geometry, inputs, group_inputs: inputs / self.groups, group, first };
                self.add_weight(&piece, map, gradient, part, &mut scratch.patches);
                if let Some(d_input) = &mut d_input {
                    self.add_input(&piece, gradient, d_input, &mut scratch.d_patches);
                }
            }
        }
    }

    /// What a piece adds to the gradient of its group's weight, if that is wanted.
    fn add_weight(&self, piece: &Piece<'_>, map: &[T], gradient: &[T], part: &mut Part<T>, patches: &mut Aligned<T>) {
        if part.d_weight.is_empty() {
            return;
        }
        let GroupSize { depth, outputs } = self.size;
        let (pitch, pixels) = (self.size.pitch(), gradient.len() / self.size.pitch());
        let patches = patches.zeroed(pixels * depth);
        piece.gather(map, patches);
        let d_weight = &mut part.d_weight[piece.group * depth * pitch..][..depth * pitch];
        outer(self.level, (patches, depth), (gradient, outputs), d_weight);
    }

    /// What a piece adds to the gradient of the input.
    fn add_input(&self, piece: &Piece<'_>, gradient: &[T], d_input: &mut [T], d_patches: &mut Aligned<T>) {
        let pitch = self.size.pitch();
        let d_patches = d_patches.resize(gradient.len() / pitch * self.size.depth);
        self.products[piece.group].rows(gradient, pitch, d_patches);
        piece.scatter(d_patches, d_input);
    }
}

/// Patch and outputs of a group.
#[derive(Clone, Copy)]
struct GroupSize {
    depth: usize,
    outputs: usize,
}

impl GroupSize {
    /// From one pixel's outputs to the next one's.
    fn pitch(self) -> usize {
        self.outputs.next_multiple_of(BLOCK)
    }

    /// The group's columns of `weight [depth, O]`.
    fn matrix<T: Element>(self, weight: &[T], group: usize, outputs: usize) -> Vec<T> {
        weight.chunks_exact(outputs).flat_map(|row| &row[group * self.outputs..][..self.outputs]).copied().collect()
    }

    /// The group's columns of a gradient `[pixels, O]`, with pixels whole blocks apart.
    fn columns<'s, T: Element>(
        self,
        gradient: &[T],
        group: usize,
        outputs: usize,
        scratch: &'s mut Aligned<T>,
    ) -> &'s [T] {
        let pitch = self.pitch();
        let scratch = scratch.zeroed(gradient.len() / outputs * pitch);
        for (to, from) in scratch.chunks_exact_mut(pitch).zip(gradient.chunks_exact(outputs)) {
            to[..self.outputs].copy_from_slice(&from[group * self.outputs..][..self.outputs]);
        }
        scratch
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
    /// Calls `work(patch, input, count)` with where elements that follow each other are in the patches and in the map:
    /// the channels of a tap, or of all taps of a kernel row if they are neighbours.
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
