//! What batch normalisation, activation and their gradients do to the pixels of a map, channel by channel.
//!
//! All of it is memory traffic: each function is one pass over a piece of a map. `apply` and `combine` are the first to
//! touch a piece and ask for memory ahead; the others mostly find it in the cache. For any element type. A *row* is a
//! pixel, or several narrow ones with constants repeated for each: a loop of sixteen elements would be mostly its own
//! start and end. Passes that only write are plain loops over a row, which the compiler turns into the level's
//! instructions. Those that add up keep sums of four vectors of channels in registers while some rows, few enough to
//! stay in a first-level cache, pass by:
//!
//! ```text
//! for some rows:
//!     for four vectors of channels:
//!         for each of the rows:
//!             load, compute, add to the sums
//! ```

use core::ops::Range;

use fearless_simd::prelude::*;

use super::prefetch::prefetch_far_of;
use super::{BLOCK, Clamp, SimdLevel};
use crate::Element;

/// Elements of a row that hide its start and end, and hold two turns of four of the longest vectors.
const LONG: usize = 128;

/// Channels of the widest pixel that is taken together with its neighbours.
const NARROW: usize = LONG / 2;

/// Vectors whose sums are in registers together; the rest of a row goes one by one.
const VECTORS: usize = 4;

/// Elements of the rows that pass by: a first-level cache of 32 KiB. With a quarter, wide pixels take up to 1.7 times
/// as long (Zen 3), as sums go in and out for every row or two.
const PIECE: usize = 8192;

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

/// Runs code with a level's instructions.
macro_rules! at_level {
    ($level:expr, $simd:pat => $run:expr) => {{
        let token = $level.token().unwrap_or_else(|| unreachable!("this machine cannot run {}", $level));
        fearless_simd::dispatch!(token, simd => simd.vectorize(
            #[inline(always)]
            || {
                let $simd = simd;
                $run
            }
        ))
    }};
}

/// What adds up over rows.
trait Pass<T: Element> {
    /// Takes `N` vectors of these channels of the rows, or less than one.
    fn stretch<S: Simd, const N: usize>(&mut self, simd: S, rows: Range<usize>, channels: Range<usize>);
}

/// A pass over so many elements in rows of `len`, the last of which may be shorter.
fn run<T: Element>(level: SimdLevel, elements: usize, len: usize, pass: &mut impl Pass<T>) {
    #[inline(always)]
    fn run<T: Element, S: Simd>(simd: S, [elements, len]: [usize; 2], pass: &mut impl Pass<T>) {
        let (vector, whole, most) = (T::Native::<S>::LEN, elements / len, (PIECE / len).max(1));
        let mut first = 0;
        while first * len < elements {
            let (rows, end) = match whole - first {
                0 => (first..first + 1, elements % len),
                left => (first..first + left.min(most), len),
            };
            let mut at = 0;
            while at < end {
                at += match end - at {
                    left if left >= VECTORS * vector => {
                        pass.stretch::<S, VECTORS>(simd, rows.clone(), at..at + VECTORS * vector);
                        VECTORS * vector
                    }
                    left if left >= vector => {
                        pass.stretch::<S, 1>(simd, rows.clone(), at..at + vector);
                        vector
                    }
                    left => {
                        pass.stretch::<S, 1>(simd, rows.clone(), at..end);
                        left
                    }
                };
            }
            first = rows.end;
        }
    }
    at_level!(level, simd => run(simd, [elements, len], pass));
}

/// As many vectors as there are elements; of less than one, zeros beyond.
#[inline(always)]
fn load<T: Element, S: Simd, const N: usize>(simd: S, from: &[T]) -> [T::Native<S>; N] {
    let len = T::Native::<S>::LEN;
    let mut all = [T::Native::<S>::splat(simd, T::zero()); N];
    if from.len() == N * len {
        unroll!(v < N, 4, { all[v] = T::Native::<S>::from_slice(simd, &from[v * len..][..len]) });
    } else {
        let mut copy = [T::zero(); BLOCK];
        copy[..from.len()].copy_from_slice(from);
        all[0] = T::Native::<S>::from_slice(simd, &copy[..len]);
    }
    all
}

/// The way back of [`load`].
#[inline(always)]
fn store<T: Element, S: Simd, const N: usize>(all: [T::Native<S>; N], to: &mut [T]) {
    let len = T::Native::<S>::LEN;
    if to.len() == N * len {
        unroll!(v < N, 4, { all[v].store_slice(&mut to[v * len..][..len]) });
    } else {
        let mut copy = [T::zero(); BLOCK];
        all[0].store_slice(&mut copy[..len]);
        to.copy_from_slice(&copy[..to.len()]);
    }
}

/// Per-channel values, as often as they fit a row of narrow pixels.
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

/// Elements of a row of narrow pixels: whole blocks, if so few pixels have them.
fn group(channels: usize) -> usize {
    let longest = LONG / channels * channels;
    (channels..=longest).rev().step_by(channels).find(|len| len % BLOCK == 0).unwrap_or(longest)
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
            prefetch_far_of(input);
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
        at_level!(level, _ => run(affine, group(channels), input, output));
    } else {
        at_level!(level, _ => run(affine, channels, input, output));
    }
}

/// Mean of each channel and its sum of squared distances from it: `squares[c] = sum of (x - mean[c])^2`.
///
/// In one pass over distances from the first pixel: `sum of x^2 - n mean^2` would lose everything where the mean is
/// large. One of `n` values is at most `sqrt(n - 1)` standard deviations from their mean, and seldom more than a few.
///
/// # Panics
///
/// If the outputs differ in length or there is no pixel.
pub fn moments<T: Element>(level: SimdLevel, input: &[T], mean: &mut [T], squares: &mut [T]) {
    struct Moments<'a, T> {
        input: &'a [T],
        center: &'a [T],
        sums: &'a mut [T],
        squares: &'a mut [T],
    }
    impl<T: Element> Pass<T> for Moments<'_, T> {
        #[inline(always)]
        fn stretch<S: Simd, const N: usize>(&mut self, simd: S, rows: Range<usize>, channels: Range<usize>) {
            let center: [_; N] = load(simd, &self.center[channels.clone()]);
            let mut sums: [_; N] = load(simd, &self.sums[channels.clone()]);
            let mut squares: [_; N] = load(simd, &self.squares[channels.clone()]);
            for row in rows {
                let values: [_; N] =
                    load(simd, &self.input[row * self.center.len() + channels.start..][..channels.len()]);
                unroll!(v < N, 4, {
                    let distance: T::Native<S> = values[v] - center[v];
                    sums[v] += distance;
                    squares[v] = distance.mul_add(distance, squares[v]);
                });
            }
            store::<T, S, N>(sums, &mut self.sums[channels.clone()]);
            store::<T, S, N>(squares, &mut self.squares[channels]);
        }
    }
    let channels = mean.len();
    assert_eq!(channels, squares.len(), "outputs differ");
    let center = &input[..channels];
    if channels <= NARROW {
        let len = group(channels);
        let center = Repeated::new(center);
        let [mut sums, mut squares_of] = [[T::zero(); LONG]; 2].map(Repeated);
        let center = &center.0[..len];
        let mut pass = Moments { input, center, sums: &mut sums.0[..len], squares: &mut squares_of.0[..len] };
        run(level, input.len(), len, &mut pass);
        sums.fold(mean);
        squares_of.fold(squares);
    } else {
        mean.fill(T::zero());
        squares.fill(T::zero());
        run(level, input.len(), channels, &mut Moments { input, center, sums: mean, squares });
    }
    around_mean(input.len() / channels, center, mean, squares);
}

/// Turns sums over so many distances from a center, and over their squares, into those of [`moments`].
pub(super) fn around_mean<T: Element>(count: usize, center: &[T], mean: &mut [T], squares: &mut [T]) {
    let count = T::from_f64(count as f64);
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
    struct Sum<'a, T> {
        input: &'a [T],
        pitch: usize,
        sums: &'a mut [T],
    }
    impl<T: Element> Pass<T> for Sum<'_, T> {
        #[inline(always)]
        fn stretch<S: Simd, const N: usize>(&mut self, simd: S, rows: Range<usize>, channels: Range<usize>) {
            let mut sums: [_; N] = load(simd, &self.sums[channels.clone()]);
            for row in rows {
                let values: [_; N] = load(simd, &self.input[row * self.pitch + channels.start..][..channels.len()]);
                unroll!(v < N, 4, { sums[v] += values[v] });
            }
            store::<T, S, N>(sums, &mut self.sums[channels]);
        }
    }
    let channels = sums.len();
    assert!(pitch >= channels, "pixels overlap");
    if pitch == channels && channels <= NARROW {
        let mut parts = Repeated([T::zero(); LONG]);
        let pitch = group(channels);
        run(level, input.len(), pitch, &mut Sum { input, pitch, sums: &mut parts.0 });
        parts.fold(sums);
    } else {
        sums.fill(T::zero());
        run(level, input.len().div_ceil(pitch) * channels, channels, &mut Sum { input, pitch, sums });
    }
}

/// The gradient of a normalisation by its input: `output[p, c] = a[c] * gradient[p, c] + b[c] * input[p, c] + c[c]`,
/// with pixels of the output `pitch` elements apart.
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
            prefetch_far_of(gradient);
            prefetch_far_of(input);
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
        at_level!(level, _ => run([&a.0, &b.0, &c.0], [gradient, input], [len, len], output));
    } else {
        at_level!(level, _ => run(constants, [gradient, input], [channels, pitch], output));
    }
}

/// The gradient of a clamp by what it cut, in place, and the sums that the gradient of the normalisation before it
/// needs.
///
/// `gradient[p, c]` stays where `scale[c] * input[p, c] + shift[c]` lies inside the clamp and becomes 0 elsewhere (at
/// the borders too, as PyTorch and TensorFlow have it); `sums[0][c] = sum of gradient[p, c]`, `sums[1][c] = sum of
/// gradient[p, c] * (input[p, c] - center[c])`.
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
    struct Mask<'a, T> {
        affine: Affine<'a, T>,
        center: &'a [T],
        input: &'a [T],
        gradient: &'a mut [T],
        sums: [&'a mut [T]; 2],
    }
    impl<T: Element> Pass<T> for Mask<'_, T> {
        #[inline(always)]
        fn stretch<S: Simd, const N: usize>(&mut self, simd: S, rows: Range<usize>, channels: Range<usize>) {
            let Affine { scale, shift, clamp } = self.affine;
            let [low, high, zero] = [clamp.low, clamp.high, T::zero()].map(|value| T::Native::<S>::splat(simd, value));
            let scale: [_; N] = load(simd, &scale[channels.clone()]);
            let shift: [_; N] = load(simd, &shift[channels.clone()]);
            let center: [_; N] = load(simd, &self.center[channels.clone()]);
            let mut sum: [_; N] = load(simd, &self.sums[0][channels.clone()]);
            let mut spread: [_; N] = load(simd, &self.sums[1][channels.clone()]);
            for row in rows {
                let at = row * self.sums[0].len() + channels.start;
                let input: [T::Native<S>; N] = load(simd, &self.input[at..][..channels.len()]);
                let gradient = &mut self.gradient[at..][..channels.len()];
                let mut passed: [_; N] = load(simd, gradient);
                unroll!(v < N, 4, {
                    let value: T::Native<S> = input[v].mul_add(scale[v], shift[v]);
                    // Without the sum the compiler sees that what passes is there already, and stores zeros through a
                    // mask, which takes a Zen 3 twelve cycles.
                    passed[v] = (value.simd_gt(low) & value.simd_lt(high)).select(passed[v] + zero, zero);
                    sum[v] += passed[v];
                    spread[v] = passed[v].mul_add(input[v] - center[v], spread[v]);
                });
                store::<T, S, N>(passed, gradient);
            }
            store::<T, S, N>(sum, &mut self.sums[0][channels.clone()]);
            store::<T, S, N>(spread, &mut self.sums[1][channels]);
        }
    }
    assert_eq!(input.len(), gradient.len(), "sizes differ");
    let channels = affine.scale.len();
    let [sum, spread] = sums;
    if channels <= NARROW {
        let [scale, shift, center] = [affine.scale, affine.shift, center].map(Repeated::new);
        let affine = Affine { scale: &scale.0, shift: &shift.0, ..affine };
        let [mut sums, mut spreads] = [[T::zero(); LONG]; 2].map(Repeated);
        let len = group(channels);
        let parts = [&mut sums.0[..len], &mut spreads.0[..len]];
        run(level, input.len(), len, &mut Mask { affine, center: &center.0, input, gradient, sums: parts });
        sums.fold(sum);
        spreads.fold(spread);
    } else {
        sum.fill(T::zero());
        spread.fill(T::zero());
        run(level, input.len(), channels, &mut Mask { affine, center, input, gradient, sums: [sum, spread] });
    }
}
