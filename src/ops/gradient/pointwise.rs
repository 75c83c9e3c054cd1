//! Pointwise convolution in training.
//!
//! A piece of pixels is a matrix product forward, and two backward: with the transposed weight for its inputs, and an
//! outer product for the weight. The pieces of one task add to one copy of the weight's gradient. Where there are too
//! few pixels for several tasks, as in a classifier, the rows of the weight's gradient are shared instead.

use alloc::vec;
use alloc::vec::Vec;

use super::super::lazy::{GradientSums, Lazy, LazyGradient, Moments, PIECE};
use super::product::{Product, outer};
use super::{Backward, MOST_TASKS, Part, add_rows, applied, check_forward, combined, gather, gather_weight, masked};
use crate::aligned::Aligned;
use crate::kernels::{BLOCK, TILES, columns};
use crate::{Element, Error, Result, Runtime, Tensor};

/// Pixels that are worth a copy of the weight's gradient of their own: 7x7 maps of 16 images make six tasks, larger
/// ones sixteen.
const TASK: usize = 128;

/// Pixels of a piece, whose inputs and outputs are [`PIECE`] elements together: with copies, half of the cache.
fn piece(channels: usize) -> usize {
    (PIECE / channels / TILES).max(1) * TILES
}

/// `output = bias + input * weight` with `weight [I, O]`; returns the output's moments if asked for.
///
/// # Errors
///
/// If shapes or lengths do not fit, or the input has no elements.
pub fn pointwise_forward<T: Element>(
    input: Lazy<'_, T>,
    weight: &[T],
    bias: Option<&[T]>,
    output: &mut Tensor<T>,
    moments: Option<&mut Moments>,
    runtime: &Runtime,
) -> Result<()> {
    let ([n, h, w, inputs], outputs) = (input.map.shape(), output.shape()[3]);
    let (lengths, shapes) = ([weight.len(), inputs * outputs], [output.shape(), [n, h, w, outputs]]);
    check_forward("pointwise_forward", input, lengths, bias, shapes, moments.as_deref())?;
    if outputs == 0 {
        return Ok(());
    }
    let level = runtime.simd_level();
    let product = Product::new(weight, bias, [inputs, outputs], runtime);
    let rows = piece(inputs + outputs);
    let values = output.as_mut_slice();
    let mut parts =
        vec![T::zero(); if moments.is_some() { values.len().div_ceil(rows * outputs) * 2 * outputs } else { 0 }];
    let mut part = parts.chunks_exact_mut(2 * outputs);
    let pieces: Vec<_> = values.chunks_mut(rows * outputs).map(|output| (output, part.next())).enumerate().collect();
    runtime.sweep(pieces, |scratch: &mut Aligned<T>, (index, (output, part))| {
        let len = output.len() / outputs * inputs;
        let input = applied(level, input, [index * rows * inputs, len], scratch);
        product.rows(input, inputs, output);
        if let Some(part) = part {
            let (mean, squares) = part.split_at_mut(outputs);
            columns::moments(level, output, mean, squares);
        }
    });
    if let Some(moments) = moments {
        for (part, values) in parts.chunks_exact(2 * outputs).zip(values.chunks(rows * outputs)) {
            let (mean, squares) = part.split_at(outputs);
            moments.merge(values.len() / outputs, mean, squares);
        }
    }
    Ok(())
}

/// Both gradients; returns the sums of the input's if the input is lazy and its gradient wanted.
///
/// # Errors
///
/// If shapes or lengths do not fit, or the input has no elements.
pub fn pointwise_backward<T: Element>(work: Backward<'_, T>, runtime: &Runtime) -> Result<Option<GradientSums>> {
    let ([n, h, w, inputs], outputs) = (work.input.map.shape(), work.d_output.map.shape()[3]);
    if outputs == 0 {
        return Err(Error::shape("pointwise_backward", "d_output", &work.d_output.map.shape(), "at least one channel"));
    }
    work.check("pointwise_backward", [n, h, w, outputs], inputs * outputs)?;
    let Backward { input, d_output, weight, d_weight, d_bias, d_input } = work;
    let level = runtime.simd_level();
    let (pitch, rows) = (outputs.next_multiple_of(BLOCK), piece(inputs + outputs));
    let pixels = input.map.as_slice().len() / inputs;
    let tasks = (pixels / TASK).clamp(1, MOST_TASKS);
    let per_task = pixels.div_ceil(tasks);
    let d_weight = match d_weight {
        Some(d_weight) if tasks == 1 && d_weight.len() > Runtime::PIECE => {
            add_by_rows(input, d_output, d_weight, runtime);
            None
        }
        d_weight => d_weight,
    };

    let product = d_input.is_some().then(|| Product::transposed(weight, [inputs, outputs], runtime));
    let [weight_len, bias_len] = [d_weight.is_some(), d_bias.is_some()].map(usize::from);
    let affine = input.affine.filter(|_| d_input.is_some());
    let mut d_inputs = d_input.map(|map| map.as_mut_slice().chunks_mut(per_task * inputs));
    let mut parts = runtime.scratch::<Vec<Part<T>>>();
    let parts = Part::some(&mut parts, pixels.div_ceil(per_task));
    let work: Vec<_> =
        parts.iter_mut().map(|part| (part, d_inputs.as_mut().and_then(Iterator::next))).enumerate().collect();
    runtime.sweep(work, |scratch: &mut [Aligned<T>; 2], (task, (part, mut d_input))| {
        part.start([weight_len * inputs * pitch, bias_len * outputs, inputs]);
        let [inputs_scratch, outputs_scratch] = scratch;
        let end = pixels.min((task + 1) * per_task);
        let mut first = task * per_task;
        while first < end {
            let count = rows.min(end - first);
            let gradient = combined(level, d_output, [first * outputs, count * outputs], pitch, outputs_scratch);
            if weight_len > 0 {
                let input = applied(level, input, [first * inputs, count * inputs], inputs_scratch);
                outer(level, (input, inputs), (gradient, outputs), &mut part.d_weight);
            }
            part.add_bias(level, gradient, pitch);
            if let (Some(d_input), Some(product)) = (&mut d_input, &product) {
                let d_input = &mut d_input[(first - task * per_task) * inputs..][..count * inputs];
                product.rows(gradient, pitch, d_input);
                masked(level, input, first * inputs, d_input, &mut part.sums);
            }
            first += count;
        }
    });
    if let Some(d_weight) = d_weight {
        gather_weight(parts, 1, [outputs, pitch], d_weight, runtime);
    }
    Ok(gather(parts, [outputs, pitch], affine, None, d_bias))
}

/// Adds what few pixels make of a large weight's gradient: threads share its rows, and what they add stays in their
/// caches.
fn add_by_rows<T: Element>(input: Lazy<'_, T>, d_output: LazyGradient<'_, T>, d_weight: &mut [T], runtime: &Runtime) {
    let (level, [inputs, outputs]) = (runtime.simd_level(), [input.map, d_output.map].map(|map| map.shape()[3]));
    let pitch = outputs.next_multiple_of(BLOCK);
    let [input_len, output_len] = [input.map, d_output.map].map(|map| map.as_slice().len());
    let mut scratch = runtime.scratch::<[Aligned<T>; 2]>();
    let [inputs_scratch, outputs_scratch] = &mut *scratch;
    let input = applied(level, input, [0, input_len], inputs_scratch);
    let gradient = combined(level, d_output, [0, output_len], pitch, outputs_scratch);
    let rows = (Runtime::PIECE / pitch).max(1);
    runtime.for_each_chunk(d_weight, rows * outputs, |index, d_weight| {
        let input = (&input[index * rows..], inputs);
        if pitch == outputs {
            outer(level, input, (gradient, outputs), d_weight);
            return;
        }
        let mut sums = runtime.scratch::<Aligned<T>>();
        let sums = sums.zeroed(d_weight.len() / outputs * pitch);
        outer(level, input, (gradient, outputs), sums);
        add_rows(sums, pitch, d_weight, outputs, 0..outputs);
    });
}
