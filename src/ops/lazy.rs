//! Maps and gradients whose last elementwise step is still to be done.
//!
//! In training, a normalised and activated map is never written: the next layer applies both to each piece of the map
//! as it reads it. A network then keeps one map per convolution for its backward pass, and passes over memory half as
//! often.

use alloc::vec;
use alloc::vec::Vec;

use crate::kernels::Clamp;
use crate::kernels::columns;
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// Elements of a piece of a map that stays in a second-level cache while it is worked on: a quarter of one.
pub(super) const PIECE: usize = 64 * 1024;

/// A normalisation and an activation per channel: `clamp(scale * x + shift)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine<T> {
    /// `[C]`.
    pub scale: Vec<T>,
    /// `[C]`.
    pub shift: Vec<T>,
    /// `[C]`: the mean that the normalisation subtracts, around which its gradient is summed without cancellation.
    pub center: Vec<T>,
    /// The range of the result.
    pub clamp: Clamp<T>,
}

impl<T: Element> Affine<T> {
    /// An activation alone.
    #[must_use]
    pub fn activation(channels: usize, clamp: Clamp<T>) -> Self {
        Self {
            scale: vec![T::one(); channels],
            shift: vec![T::zero(); channels],
            center: vec![T::zero(); channels],
            clamp,
        }
    }

    /// As the kernels take it.
    pub(super) fn lend(&self) -> columns::Affine<'_, T> {
        columns::Affine { scale: &self.scale, shift: &self.shift, clamp: self.clamp }
    }
}

/// A map, and what is still to be applied to it.
#[derive(Clone, Copy, Debug)]
pub struct Lazy<'a, T> {
    /// The values before.
    pub map: &'a Tensor<T>,
    /// To be applied; nothing if `None`.
    pub affine: Option<&'a Affine<T>>,
}

/// A gradient by the output of a normalisation, and what makes it one by the input.
#[derive(Clone, Copy, Debug)]
pub struct LazyGradient<'a, T> {
    /// The gradient by the output.
    pub map: &'a Tensor<T>,
    /// The normalisation's input `x` and `[a, b, c]`: the gradient by the input is `a * map + b * x + c` per channel.
    pub through: Option<(&'a Tensor<T>, [&'a [T]; 3])>,
}

/// Mean and sum of squared distances from it of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Values per channel.
    pub count: usize,
    /// `[C]`.
    pub mean: Vec<f64>,
    /// `[C]`.
    pub squares: Vec<f64>,
}

/// What the gradient of a normalisation by its parameters is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientSums {
    /// `[C]`: sum of the gradient.
    pub gradient: Vec<f64>,
    /// `[C]`: sum of the gradient times the distance of the input from the affine's center.
    pub spread: Vec<f64>,
}

impl Moments {
    /// Of no values.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self { count: 0, mean: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Takes in those of `count` more values (Chan, Golub & `LeVeque` 1979).
    pub(super) fn merge<T: Element>(&mut self, count: usize, mean: &[T], squares: &[T]) {
        let (before, total) = (self.count as f64, (self.count + count) as f64);
        for (c, (mean, squares)) in mean.iter().zip(squares).enumerate() {
            let distance = Element::to_f64(*mean) - self.mean[c];
            self.mean[c] += distance * (count as f64 / total);
            self.squares[c] += Element::to_f64(*squares) + distance * distance * (before * count as f64 / total);
        }
        self.count += count;
    }

    pub(super) fn join(&mut self, other: &Self) {
        if other.count > 0 {
            self.merge(other.count, &other.mean, &other.squares);
        }
    }
}

impl GradientSums {
    /// Of nothing.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self { gradient: vec![0.0; channels], spread: vec![0.0; channels] }
    }

    /// Adds those of some pixels for channels from `first` on.
    pub(super) fn add<T: Element>(&mut self, first: usize, [gradient, spread]: [&[T]; 2]) {
        for (to, from) in [(&mut self.gradient, gradient), (&mut self.spread, spread)] {
            for (to, from) in to[first..].iter_mut().zip(from) {
                *to += Element::to_f64(*from);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.add(0, [&other.gradient, &other.spread]);
    }
}

/// Whole pixels of about [`PIECE`] elements.
fn piece(channels: usize) -> usize {
    (PIECE / channels.max(1)).max(1) * channels.max(1)
}

/// The map with everything applied.
///
/// # Errors
///
/// If the affine is not of the map's channels or `output` not of its shape.
pub fn apply<T: Element>(input: Lazy<'_, T>, output: &mut Tensor<T>, runtime: &Runtime) -> Result<()> {
    let channels = check("apply", input, output)?;
    let (values, len, level) = (input.map.as_slice(), piece(channels), runtime.simd_level());
    runtime.for_each_chunk(output.as_mut_slice(), len, |index, output| {
        let values = &values[index * len..][..output.len()];
        match input.affine {
            Some(affine) => columns::apply(level, affine.lend(), values, output),
            None => output.copy_from_slice(values),
        }
    });
    Ok(())
}

/// Mean and spread of each channel.
#[must_use]
pub fn moments<T: Element>(map: &Tensor<T>, runtime: &Runtime) -> Moments {
    let channels = map.shape()[3];
    let mut all = Moments::new(channels);
    let (values, len, level) = (map.as_slice(), piece(channels), runtime.simd_level());
    if values.is_empty() {
        return all;
    }
    let mut parts = vec![T::zero(); values.len().div_ceil(len) * 2 * channels];
    runtime.for_each_chunk(&mut parts, 2 * channels, |index, part| {
        let (mean, squares) = part.split_at_mut(channels);
        let values = &values[index * len..];
        columns::moments(level, &values[..len.min(values.len())], mean, squares);
    });
    for (values, part) in values.chunks(len).zip(parts.chunks_exact(2 * channels)) {
        let (mean, squares) = part.split_at(channels);
        all.merge(values.len() / channels, mean, squares);
    }
    all
}

/// The gradient by a lazy map's values before its affine, of one by those after its clamp: in place, without the
/// affine's scale, and with the sums that a normalisation needs.
///
/// # Errors
///
/// If shapes or channels differ.
pub fn mask<T: Element>(
    input: Lazy<'_, T>,
    affine: &Affine<T>,
    gradient: &mut Tensor<T>,
    runtime: &Runtime,
) -> Result<GradientSums> {
    let channels = check("mask", Lazy { affine: Some(affine), ..input }, gradient)?;
    let mut sums = GradientSums::new(channels);
    let (values, len, level) = (input.map.as_slice(), piece(channels), runtime.simd_level());
    if values.is_empty() {
        return Ok(sums);
    }
    let mut parts = vec![T::zero(); values.len().div_ceil(len) * 2 * channels];
    let pieces = values.chunks(len).zip(gradient.as_mut_slice().chunks_mut(len)).zip(parts.chunks_mut(2 * channels));
    runtime.sweep(pieces.collect(), |(): &mut (), ((input, gradient), part)| {
        let (sum, spread) = part.split_at_mut(channels);
        columns::mask(level, affine.lend(), &affine.center, input, gradient, [sum, spread]);
    });
    for part in parts.chunks_exact(2 * channels) {
        let (sum, spread) = part.split_at(channels);
        sums.add(0, [sum, spread]);
    }
    Ok(sums)
}

/// The gradient by the normalisation's input.
///
/// # Errors
///
/// If shapes differ.
pub fn combine<T: Element>(gradient: LazyGradient<'_, T>, output: &mut Tensor<T>, runtime: &Runtime) -> Result<()> {
    let channels = check("combine", Lazy { map: gradient.map, affine: None }, output)?;
    let Some((input, constants)) = gradient.through else {
        output.as_mut_slice().copy_from_slice(gradient.map.as_slice());
        return Ok(());
    };
    check("combine", Lazy { map: input, affine: None }, output)?;
    let (gradient, input, len) = (gradient.map.as_slice(), input.as_slice(), piece(channels));
    let level = runtime.simd_level();
    runtime.for_each_chunk(output.as_mut_slice(), len, |index, output| {
        let [gradient, input] = [gradient, input].map(|values| &values[index * len..][..output.len()]);
        columns::combine(level, constants, gradient, input, channels, output);
    });
    Ok(())
}

/// `output += input`, in place.
///
/// # Errors
///
/// If the shapes differ.
pub fn add_to<T: Element>(output: &mut Tensor<T>, input: &Tensor<T>, runtime: &Runtime) -> Result<()> {
    check("add", Lazy { map: input, affine: None }, output)?;
    runtime.for_each_chunk(output.as_mut_slice(), PIECE, |index, output| {
        for (output, input) in output.iter_mut().zip(&input.as_slice()[index * PIECE..]) {
            *output += *input;
        }
    });
    Ok(())
}

/// The channels, if everything fits.
fn check<T: Element>(operation: &'static str, input: Lazy<'_, T>, output: &Tensor<T>) -> Result<usize> {
    check_shape(operation, "output", output.shape(), input.map.shape())?;
    check_affine(operation, input)
}

/// The channels, if the affine has as many.
pub(super) fn check_affine<T: Element>(operation: &'static str, input: Lazy<'_, T>) -> Result<usize> {
    let channels = input.map.shape()[3];
    if let Some(affine) = input.affine {
        for values in [&affine.scale, &affine.shift, &affine.center] {
            check_len(operation, "affine", values.len(), channels)?;
        }
    }
    Ok(channels)
}

pub(super) fn check_shape(
    operation: &'static str,
    argument: &'static str,
    found: Shape,
    expected: Shape,
) -> Result<()> {
    if found != expected {
        return Err(Error::shape(operation, argument, &found, format_args!("{expected:?}")));
    }
    Ok(())
}

pub(super) fn check_len(operation: &'static str, argument: &'static str, found: usize, expected: usize) -> Result<()> {
    if found != expected {
        return Err(Error::shape(operation, argument, &[found], format_args!("[{expected}]")));
    }
    Ok(())
}
