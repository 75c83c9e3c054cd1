//! Convolutions in training: forward from a lazy map, with the moments of the output, and both gradients.
//!
//! All work on pieces of a map that stay in the second-level cache from their first use to their last: a backward piece
//! applies the normalisation below to its inputs, the gradient of the one above to its outputs, adds to the gradient of
//! the weight, computes the gradient of the input, masks and sums it. Memory is read and written once per map.
//!
//! How the work is cut depends on shapes alone, and partial sums are added in that order, so that results do not depend
//! on the number of threads.

mod conv;
mod depthwise;
mod pointwise;
mod product;
mod strip;

pub use conv::{conv_backward, conv_forward};
pub use depthwise::{depthwise_backward, depthwise_forward};
pub use pointwise::{pointwise_backward, pointwise_forward};

use alloc::vec::Vec;
use core::ops::Range;

use super::lazy::{Affine, GradientSums, Lazy, LazyGradient, Moments, check_affine, check_len, check_shape};
use crate::aligned::Aligned;
use crate::kernels::{SimdLevel, columns};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// Most parts a backward convolution's work has, each with its copy of the weight's gradient. More cost more memory
/// traffic, fewer leave threads without work.
const MOST_TASKS: usize = 16;

/// What a backward convolution reads and writes. Gradients of weight and bias are added to what is there, that of the
/// input replaces it; `None` is not computed.
#[derive(Debug)]
pub struct Backward<'a, T> {
    /// The input of the forward convolution.
    pub input: Lazy<'a, T>,
    /// The gradient by its output.
    pub d_output: LazyGradient<'a, T>,
    /// Its weight, in the forward operation's order.
    pub weight: &'a [T],
    /// Of the weight's length.
    pub d_weight: Option<&'a mut [T]>,
    /// One value per output channel.
    pub d_bias: Option<&'a mut [T]>,
    /// Of the input's shape: the gradient by the values before the input's affine, without its scale.
    pub d_input: Option<&'a mut Tensor<T>>,
}

impl<T: Element> Backward<'_, T> {
    /// Refuses what does not fit an output of this shape and a weight of this length.
    fn check(&self, operation: &'static str, output: Shape, weight: usize) -> Result<()> {
        let Self { input, d_output, d_weight, d_bias, d_input, .. } = self;
        check_operands(operation, *input, [self.weight.len(), weight])?;
        check_shape(operation, "d_output", d_output.map.shape(), output)?;
        if let Some((map, constants)) = d_output.through {
            check_shape(operation, "input of the normalisation", map.shape(), output)?;
            for constant in constants {
                check_len(operation, "constant of the normalisation", constant.len(), output[3])?;
            }
        }
        if let Some(d_weight) = d_weight {
            check_len(operation, "d_weight", d_weight.len(), weight)?;
        }
        if let Some(d_bias) = d_bias {
            check_len(operation, "d_bias", d_bias.len(), output[3])?;
        }
        d_input.as_ref().map_or(Ok(()), |map| check_shape(operation, "d_input", map.shape(), input.map.shape()))
    }
}

/// Refuses what does not fit the output of a forward convolution.
fn check_forward<T: Element>(
    operation: &'static str,
    input: Lazy<'_, T>,
    weight: [usize; 2],
    bias: Option<&[T]>,
    [found, expected]: [Shape; 2],
    moments: Option<&Moments>,
) -> Result<()> {
    check_operands(operation, input, weight)?;
    check_shape(operation, "output", found, expected)?;
    let moments = moments.map(|moments| moments.mean.len().min(moments.squares.len()));
    for (argument, len) in [("bias", bias.map(<[T]>::len)), ("moments", moments)] {
        if let Some(len) = len {
            check_len(operation, argument, len, expected[3])?;
        }
    }
    Ok(())
}

/// Refuses an input without elements or with another affine, and a weight of another length.
fn check_operands<T: Element>(
    operation: &'static str,
    input: Lazy<'_, T>,
    [found, expected]: [usize; 2],
) -> Result<()> {
    let shape = input.map.shape();
    if shape.contains(&0) {
        return Err(Error::shape(operation, "input", &shape, "at least one element"));
    }
    check_affine(operation, input)?;
    check_len(operation, "weight", found, expected)
}

/// A piece of work's share of the results, in memory that is used again and again.
#[derive(Debug, Default)]
struct Part<T> {
    d_weight: Aligned<T>,
    d_bias: Vec<f64>,
    sums: GradientSums,
}

impl<T: Element> Part<T> {
    /// The first `count` parts, which [`Part::start`] makes ready.
    fn some(parts: &mut Vec<Self>, count: usize) -> &mut [Self] {
        if parts.len() < count {
            parts.resize_with(count, Self::default);
        }
        &mut parts[..count]
    }

    /// Of nothing yet; by the thread that adds to it.
    fn start(&mut self, [d_weight, d_bias, channels]: [usize; 3]) {
        self.d_weight.zeroed(d_weight);
        zeroed(&mut self.d_bias, d_bias);
        zeroed(&mut self.sums.gradient, channels);
        zeroed(&mut self.sums.spread, channels);
    }

    /// Adds the sum over a piece's pixels, if the gradient of the bias is wanted.
    fn add_bias(&mut self, level: SimdLevel, gradient: &[T], pitch: usize) {
        if self.d_bias.is_empty() {
            return;
        }
        let mut sums = alloc::vec![T::zero(); self.d_bias.len()];
        columns::sum(level, gradient, pitch, &mut sums);
        self.d_bias.iter_mut().zip(sums).for_each(|(to, from)| *to += Element::to_f64(from));
    }
}

/// Makes it that many zeros.
fn zeroed<X: Clone + Default>(values: &mut Vec<X>, len: usize) {
    values.clear();
    values.resize(len, X::default());
}

/// Adds the parts' gradients of a weight in order, on the runtime's threads. Parts have a matrix for each group, which
/// is some columns of the weight.
fn gather_weight<T: Element>(
    parts: &[Part<T>],
    groups: usize,
    [columns, pitch]: [usize; 2],
    d_weight: &mut [T],
    runtime: &Runtime,
) {
    let width = groups * columns;
    let matrix = d_weight.len() / width * pitch;
    let rows = (Runtime::PIECE / (parts.len() * groups * pitch)).max(1);
    runtime.for_each_chunk(d_weight, rows * width, |index, d_weight| {
        for part in parts {
            for (group, from) in part.d_weight.chunks_exact(matrix).enumerate() {
                add_rows(&from[index * rows * pitch..], pitch, d_weight, width, group * columns..(group + 1) * columns);
            }
        }
    });
}

/// Adds rows of a pitch to these columns of rows of a width.
fn add_rows<T: Element>(from: &[T], pitch: usize, to: &mut [T], width: usize, columns: Range<usize>) {
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(pitch)) {
        for (to, from) in to[columns.clone()].iter_mut().zip(from) {
            *to += *from;
        }
    }
}

/// Adds the parts in order; returns the sums of the input's gradient if the input was lazy.
fn gather<T: Element>(
    parts: &[Part<T>],
    [columns, pitch]: [usize; 2],
    affine: Option<&Affine<T>>,
    d_weight: Option<&mut [T]>,
    d_bias: Option<&mut [T]>,
) -> Option<GradientSums> {
    if let Some(d_weight) = d_weight {
        for part in parts {
            add_rows(&part.d_weight, pitch, d_weight, columns, 0..columns);
        }
    }
    if let Some(d_bias) = d_bias {
        for (c, d_bias) in d_bias.iter_mut().enumerate() {
            *d_bias += T::from_f64(parts.iter().map(|part| part.d_bias[c]).sum());
        }
    }
    affine.map(|affine| {
        let mut sums = GradientSums::new(affine.scale.len());
        for part in parts {
            sums.merge(&part.sums);
        }
        sums
    })
}

/// A stretch of dense pixels of a lazy map, applied into `scratch` unless there is nothing to apply.
fn applied<'s, T: Element>(
    level: SimdLevel,
    input: Lazy<'s, T>,
    [start, len]: [usize; 2],
    scratch: &'s mut Aligned<T>,
) -> &'s [T] {
    let values = &input.map.as_slice()[start..][..len];
    let Some(affine) = input.affine else { return values };
    let scratch = scratch.resize(len);
    columns::apply(level, affine.lend(), values, scratch);
    scratch
}

/// As [`applied`] for a gradient, with pixels `pitch` apart; anything between them.
fn combined<'s, T: Element>(
    level: SimdLevel,
    gradient: LazyGradient<'s, T>,
    [start, len]: [usize; 2],
    pitch: usize,
    scratch: &'s mut Aligned<T>,
) -> &'s [T] {
    let channels = gradient.map.shape()[3];
    let values = &gradient.map.as_slice()[start..][..len];
    if gradient.through.is_none() && pitch == channels {
        return values;
    }
    let scratch = scratch.resize(len / channels * pitch);
    match gradient.through {
        Some((input, constants)) => {
            columns::combine(level, constants, values, &input.as_slice()[start..][..len], pitch, scratch);
        }
        None => {
            for (to, from) in scratch.chunks_exact_mut(pitch).zip(values.chunks_exact(channels)) {
                to[..channels].copy_from_slice(from);
            }
        }
    }
    scratch
}

/// Masks a stretch of the input's gradient and adds its sums to the part's.
fn masked<T: Element>(level: SimdLevel, input: Lazy<'_, T>, start: usize, d_input: &mut [T], sums: &mut GradientSums) {
    let Some(affine) = input.affine else { return };
    let channels = affine.scale.len();
    let mut part = alloc::vec![T::zero(); 2 * channels];
    let (sum, spread) = part.split_at_mut(channels);
    let values = &input.map.as_slice()[start..][..d_input.len()];
    columns::mask(level, affine.lend(), &affine.center, values, d_input, [sum, spread]);
    sums.add(0, [sum, spread]);
}
