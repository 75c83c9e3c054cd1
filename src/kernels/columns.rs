//! What batch normalisation, activation and their gradients do to the pixels of a map, channel by channel.
//!
//! All of it is memory traffic: each function is one pass, meant for a piece of a map that is still in the cache of the
//! kernel before it. For any element type, as plain loops over neighbouring elements that the compiler turns into the
//! level's instructions. Narrow pixels are taken several at a time, with constants repeated for each: a loop of sixteen
//! elements would be mostly its own start and end.

use fearless_simd::prelude::*;

use super::{Clamp, SimdLevel};
use crate::Element;

/// Elements of a loop that hide its start and end.
const LONG: usize = 128;

/// Channels of the widest pixel that is taken together with its neighbours.
const NARROW: usize = LONG / 2;

/// A normalisation and an activation, per channel: `clamp(scale[c] * x + shift[c])`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, T> {
    /// `[C]`.
    pub scale: &'a [T],
    /// `[C]`.
    pub shift: &'a [T],
    /// The range of the result.
    pub clamp: Clamp<T>,
}

/// Runs loops of plain Rust with a level's instructions.
macro_rules! at_level {
    ($level:expr, $run:expr) => {{
        let token = $level.token().unwrap_or_else(|| unreachable!("this machine cannot run {}", $level));
        fearless_simd::dispatch!(token, simd => simd.vectorize(#[inline(always)] || $run))
    }};
}

/// Per-channel values, as often as fits one long loop.
struct Repeated<T>([T; LONG]);

impl<T: Element> Repeated<T> {
    fn new(values: &[T]) -> Self {
        let mut repeated = [T::zero(); LONG];
        for to in repeated.chunks_exact_mut(values.len()) {
            to.copy_from_slice(values);
        }
        Self(repeated)
    }

    /// Sums of each channel over its copies.
    fn fold(&self, sums: &mut [T]) {
        sums.fill(T::zero());
        for part in self.0.chunks_exact(sums.len()) {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
        }
    }
}

/// Elements of the group of pixels that one loop runs over.
fn group(channels: usize) -> usize {
    LONG / channels * channels
}

/// `output[p, c] = clamp(scale[c] * input[p, c] + shift[c])`
///
/// # Panics
///
/// If a constant is missing, or the maps differ in length.
pub fn apply<T: Element>(level: SimdLevel, affine: Affine<'_, T>, input: &[T], output: &mut [T]) {
    #[inline(always)]
    fn run<T: Element>(affine: Affine<'_, T>, len: usize, input: &[T], output: &mut [T]) {
        for (output, input) in output.chunks_mut(len).zip(input.chunks(len)) {
            let constants = affine.scale[..output.len()].iter().zip(&affine.shift[..output.len()]);
            for ((output, &x), (&scale, &shift)) in output.iter_mut().zip(input).zip(constants) {
                *output = affine.clamp.apply(x * scale + shift);
            }
        }
    }
    assert_eq!(input.len(), output.len(), "sizes differ");
    let channels = affine.scale.len();
    if channels <= NARROW {
        let [scale, shift] = [affine.scale, affine.shift].map(Repeated::new);
        let affine = Affine { scale: &scale.0, shift: &shift.0, ..affine };
        at_level!(level, run(affine, group(channels), input, output));
    } else {
        at_level!(level, run(affine, channels, input, output));
    }
}

/// Mean of each channel and its sum of squared distances from it: `squares[c] = sum of (x - mean[c])^2`.
///
/// In one pass over distances from the first pixel: `sum of x^2 - n mean^2` would lose everything where the mean is large.
/// One of `n` values is at most `sqrt(n - 1)` standard deviations from their mean, and seldom more than a few.
///
/// # Panics
///
/// If the outputs differ in length or there is no pixel.
pub fn moments<T: Element>(level: SimdLevel, input: &[T], mean: &mut [T], squares: &mut [T]) {
    #[inline(always)]
    fn run<T: Element>(input: &[T], center: &[T], sums: &mut [T], squares: &mut [T]) {
        let len = center.len();
        for input in input.chunks(len) {
            let len = input.len();
            let sums = sums[..len].iter_mut().zip(&mut squares[..len]);
            for ((&x, &center), (sum, square)) in input.iter().zip(&center[..len]).zip(sums) {
                let distance = x - center;
                *sum += distance;
                *square += distance * distance;
            }
        }
    }
    let channels = mean.len();
    assert_eq!(channels, squares.len(), "outputs differ");
    let center = &input[..channels];
    if channels <= NARROW {
        let len = group(channels);
        let center = Repeated::new(center);
        let mut parts = [Repeated([T::zero(); LONG]), Repeated([T::zero(); LONG])];
        let [sums, squares_of] = &mut parts;
        at_level!(level, run(input, &center.0[..len], &mut sums.0[..len], &mut squares_of.0[..len]));
        parts[0].fold(mean);
        parts[1].fold(squares);
    } else {
        mean.fill(T::zero());
        squares.fill(T::zero());
        at_level!(level, run(input, center, mean, squares));
    }
    let count = T::from_f64((input.len() / channels) as f64);
    for ((mean, squares), &center) in mean.iter_mut().zip(squares).zip(center) {
        let distance = *mean / count;
        let left = *squares - *mean * distance;
        // Rounding may go below 0; what is not a number stays that.
        *squares = if left < T::zero() { T::zero() } else { left };
        *mean = center + distance;
    }
}

/// `sums[c] = sum over p of input[p, c]`, for pixels `pitch` elements apart.
///
/// # Panics
///
/// If the pitch is smaller than the channel count.
pub fn sum<T: Element>(level: SimdLevel, input: &[T], pitch: usize, sums: &mut [T]) {
    #[inline(always)]
    fn run<T: Element>(input: &[T], pitch: usize, sums: &mut [T]) {
        for input in input.chunks(pitch) {
            sums.iter_mut().zip(input).for_each(|(sum, &x)| *sum += x);
        }
    }
    let channels = sums.len();
    assert!(pitch >= channels, "pixels overlap");
    if pitch == channels && channels <= NARROW {
        let mut parts = Repeated([T::zero(); LONG]);
        at_level!(level, run(input, group(channels), &mut parts.0[..group(channels)]));
        parts.fold(sums);
    } else {
        sums.fill(T::zero());
        at_level!(level, run(input, pitch, sums));
    }
}

/// The gradient of a normalisation by its input: `output[p, c] = a[c] * gradient[p, c] + b[c] * input[p, c] + c[c]`, with
/// pixels of the output `pitch` elements apart.
///
/// # Panics
///
/// If a constant is missing, or sizes differ.
pub fn combine<T: Element>(
    level: SimdLevel,
    constants: [&[T]; 3],
    gradient: &[T],
    input: &[T],
    pitch: usize,
    output: &mut [T],
) {
    #[inline(always)]
    fn run<T: Element>([a, b, c]: [&[T]; 3], maps: [&[T]; 2], [len, pitch]: [usize; 2], output: &mut [T]) {
        let [gradient, input] = maps.map(|map| map.chunks(len));
        for ((output, gradient), input) in output.chunks_mut(pitch).zip(gradient).zip(input) {
            let len = gradient.len();
            let constants = a[..len].iter().zip(&b[..len]).zip(&c[..len]);
            for (((output, &g), &x), ((&a, &b), &c)) in output[..len].iter_mut().zip(gradient).zip(input).zip(constants)
            {
                *output = a * g + (b * x + c);
            }
        }
    }
    let channels = constants[0].len();
    assert!(gradient.len() == input.len() && output.len() / pitch == input.len() / channels, "sizes differ");
    if pitch == channels && channels <= NARROW {
        let [a, b, c] = constants.map(Repeated::new);
        let len = group(channels);
        at_level!(level, run([&a.0, &b.0, &c.0], [gradient, input], [len, len], output));
    } else {
        at_level!(level, run(constants, [gradient, input], [channels, pitch], output));
    }
}

/// The gradient of a clamp by what it cut, in place, and the sums that the gradient of the normalisation before it needs.
///
/// `gradient[p, c]` stays where `scale[c] * input[p, c] + shift[c]` lies inside the clamp and becomes 0 elsewhere (at the
/// borders too, as PyTorch and TensorFlow have it); `sums[0][c] = sum of gradient[p, c]`,
/// `sums[1][c] = sum of gradient[p, c] * (input[p, c] - center[c])`.
///
/// # Panics
///
/// If a constant is missing, or sizes differ.
pub fn mask<T: Element>(
    level: SimdLevel,
    affine: Affine<'_, T>,
    center: &[T],
    input: &[T],
    gradient: &mut [T],
    sums: [&mut [T]; 2],
) {
    #[inline(always)]
    fn run<T: Element>(
        affine: Affine<'_, T>,
        center: &[T],
        input: &[T],
        gradient: &mut [T],
        [sums, spreads]: [&mut [T]; 2],
    ) {
        let Clamp { low, high } = affine.clamp;
        let len = sums.len();
        for (gradient, input) in gradient.chunks_mut(len).zip(input.chunks(len)) {
            let len = input.len();
            let constants = affine.scale[..len].iter().zip(&affine.shift[..len]).zip(&center[..len]);
            let sums = sums[..len].iter_mut().zip(&mut spreads[..len]);
            for (((gradient, &x), ((&scale, &shift), &center)), (sum, spread)) in
                gradient.iter_mut().zip(input).zip(constants).zip(sums)
            {
                let value = x * scale + shift;
                let inside = value > low && value < high;
                let passed = if inside { *gradient } else { T::zero() };
                *gradient = passed;
                *sum += passed;
                *spread += passed * (x - center);
            }
        }
    }
    assert_eq!(input.len(), gradient.len(), "sizes differ");
    let channels = affine.scale.len();
    let [sum, spread] = sums;
    if channels <= NARROW {
        let [scale, shift, center] = [affine.scale, affine.shift, center].map(Repeated::new);
        let affine = Affine { scale: &scale.0, shift: &shift.0, ..affine };
        let mut parts = [Repeated([T::zero(); LONG]), Repeated([T::zero(); LONG])];
        let [sums, spreads] = &mut parts;
        let len = group(channels);
        at_level!(level, run(affine, &center.0, input, gradient, [&mut sums.0[..len], &mut spreads.0[..len]]));
        parts[0].fold(sum);
        parts[1].fold(spread);
    } else {
        sum.fill(T::zero());
        spread.fill(T::zero());
        at_level!(level, run(affine, center, input, gradient, [sum, spread]));
    }
}
