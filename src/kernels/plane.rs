//! Blocks of 16 channels between maps and planes, with what is to be applied on the way.
//!
//! A depthwise convolution in training works on one block of channels at a time. Its pixels, one cache line each, lie far
//! apart in a channels-last map and side by side in a plane; constants of the block stay in registers.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::f32x8;
use fearless_simd::prelude::*;
use fearless_simd::{Level, f32x4};

use super::columns::Affine;
use super::{BLOCK, Clamp, SimdLevel};

/// Channels `first` to `first + lanes` of a map of rows of pixels, each of `channels` elements.
#[derive(Clone, Copy, Debug)]
pub struct BlockOf {
    /// Rows and columns of the map.
    pub size: [usize; 2],
    /// Elements of a pixel.
    pub channels: usize,
    /// The first channel.
    pub first: usize,
    /// Their number, at most [`BLOCK`].
    pub lanes: usize,
}

/// A block's constants, with zeros for the channels it lacks.
fn block_of(values: &[f32], lanes: usize) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    block[..lanes].copy_from_slice(&values[..lanes]);
    block
}

/// Calls `$pass.run::<S, V>(simd, ..)` with a level's token and its vector of at most a block.
macro_rules! with_vector {
    ($level:expr, $pass:ident.run($argument:expr)) => {
        match $level.token() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(Level::Avx512(simd)) => $pass.run::<_, fearless_simd::f32x16<_>>(simd, $argument),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(Level::Avx2(simd)) => $pass.run::<_, f32x8<_>>(simd, $argument),
            // SSE4.2 adds nothing these loops use.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(level @ (Level::Sse2(_) | Level::Sse4_2(_))) => {
                $pass.run::<_, f32x4<_>>(level.as_sse2().expect("SSE4.2 includes SSE2"), $argument);
            }
            #[cfg(target_arch = "aarch64")]
            Some(Level::Neon(simd)) => $pass.run::<_, f32x4<_>>(simd, $argument),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Some(Level::WasmSimd128(simd)) => $pass.run::<_, f32x4<_>>(simd, $argument),
            Some(Level::Fallback(simd)) => $pass.run::<_, f32x4<_>>(simd, $argument),
            _ => unreachable!("this machine cannot run {}", $level),
        }
    };
}
pub(super) use with_vector;

impl BlockOf {
    /// The block's channels of every pixel of row `y`, and the row of a plane they belong to.
    #[inline(always)]
    fn row(self, map: &[f32], y: usize) -> impl Iterator<Item = &[f32]> {
        let Self { size: [_, width], channels, first, lanes } = self;
        let row = &map[y * width * channels + first..][..(width - 1) * channels + lanes];
        row.chunks(channels).map(move |pixel| &pixel[..lanes])
    }
}

/// One pixel's channels as a whole block: a copy with zeros, if there are fewer.
macro_rules! whole {
    ($pixel:expr, $copy:ident) => {
        match <&[f32; BLOCK]>::try_from($pixel) {
            Ok(block) => block,
            Err(_) => {
                $copy[..$pixel.len()].copy_from_slice($pixel);
                &$copy
            }
        }
    };
}

/// `plane[y, x, c] = clamp(scale[c] * map[y, x, first + c] + shift[c])`; zeros for channels the block lacks.
///
/// Rows of the plane are `row` pixels apart.
///
/// # Panics
///
/// If a slice is too short or this machine cannot run `level`.
pub fn fill_plane(
    level: SimdLevel,
    block: BlockOf,
    affine: Option<Affine<'_, f32>>,
    map: &[f32],
    plane: &mut [[f32; BLOCK]],
    row: usize,
) {
    struct Fill<'a> {
        block: BlockOf,
        affine: [[f32; BLOCK]; 2],
        clamp: Clamp<f32>,
        map: &'a [f32],
        row: usize,
    }
    impl Fill<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
                    let mut copy = [0.0; BLOCK];
                    for y in 0..self.block.size[0] {
                        for (to, from) in plane[y * self.row..].iter_mut().zip(self.block.row(self.map, y)) {
                            let from = whole!(from, copy);
                            for channel in (0..BLOCK).step_by(V::LEN) {
                                let load = |from: &[f32; BLOCK]| V::from_slice(simd, &from[channel..][..V::LEN]);
                                let value = load(from).mul_add(load(&self.affine[0]), load(&self.affine[1]));
                                high.min(low.max(value)).store_slice(&mut to[channel..][..V::LEN]);
                            }
                        }
                    }
                },
            );
        }
    }
    let BlockOf { first, lanes, .. } = block;
    let identity = [block_of(&[1.0; BLOCK], lanes), [0.0; BLOCK]];
    let constants =
        affine.map_or(identity, |affine| [affine.scale, affine.shift].map(|v| block_of(&v[first..], lanes)));
    // The clamp must not lift the zeros of absent channels: it is for the zero of their padding too.
    let clamp = affine.map_or(Clamp::none(), |affine| affine.clamp);
    let pass = Fill { block, affine: constants, clamp, map, row };
    with_vector!(level, pass.run(plane));
}

/// `plane[y, x, c] = a[c] * gradient[y, x, first + c] + b[c] * input[y, x, first + c] + c[c]`; as [`fill_plane`].
///
/// # Panics
///
/// As there.
pub fn combine_plane(
    level: SimdLevel,
    block: BlockOf,
    constants: [&[f32]; 3],
    [gradient, input]: [&[f32]; 2],
    plane: &mut [[f32; BLOCK]],
    row: usize,
) {
    struct Combine<'a> {
        block: BlockOf,
        constants: [[f32; BLOCK]; 3],
        gradient: &'a [f32],
        input: &'a [f32],
        row: usize,
    }
    impl Combine<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let (mut copy, mut other) = ([0.0; BLOCK], [0.0; BLOCK]);
                    for y in 0..self.block.size[0] {
                        let from = self.block.row(self.gradient, y).zip(self.block.row(self.input, y));
                        for (to, (gradient, input)) in plane[y * self.row..].iter_mut().zip(from) {
                            let (gradient, input) = (whole!(gradient, copy), whole!(input, other));
                            for channel in (0..BLOCK).step_by(V::LEN) {
                                let load = |from: &[f32; BLOCK]| V::from_slice(simd, &from[channel..][..V::LEN]);
                                let [a, b, c] = [0, 1, 2].map(|at: usize| load(&self.constants[at]));
                                let value = load(gradient).mul_add(a, load(input).mul_add(b, c));
                                value.store_slice(&mut to[channel..][..V::LEN]);
                            }
                        }
                    }
                },
            );
        }
    }
    let constants = constants.map(|values| block_of(&values[block.first..], block.lanes));
    let pass = Combine { block, constants, gradient, input, row };
    with_vector!(level, pass.run(plane));
}

/// Writes a plane's block back into a gradient's map, 0 where the affine of the input lies outside its clamp, and adds up
/// what [`columns::mask`](super::columns::mask) does: returns the sums of the gradient, and of it times the input's distance
/// from the center.
///
/// # Panics
///
/// As [`fill_plane`].
pub fn mask_plane(
    level: SimdLevel,
    block: BlockOf,
    affine: Affine<'_, f32>,
    center: &[f32],
    (plane, input): (&[[f32; BLOCK]], &[f32]),
    gradient: &mut [f32],
) -> [[f32; BLOCK]; 2] {
    struct Mask<'a> {
        block: BlockOf,
        constants: [[f32; BLOCK]; 3],
        clamp: Clamp<f32>,
        plane: &'a [[f32; BLOCK]],
        input: &'a [f32],
    }
    impl Mask<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(
            &self,
            simd: S,
            (gradient, sums): (&mut [f32], &mut [[f32; BLOCK]; 2]),
        ) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let BlockOf { size: [height, width], channels, first, lanes } = self.block;
                    let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
                    let zero = V::splat(simd, 0.0);
                    let (mut copy, mut made) = ([0.0; BLOCK], [0.0; BLOCK]);
                    // Sums of one vector's channels at a time stay in registers.
                    for channel in (0..BLOCK).step_by(V::LEN) {
                        let load = |from: &[f32; BLOCK]| V::from_slice(simd, &from[channel..][..V::LEN]);
                        let [scale, shift, center] = [0, 1, 2].map(|at: usize| load(&self.constants[at]));
                        let (mut sum, mut spread) = (zero, zero);
                        for y in 0..height {
                            let row = &mut gradient[y * width * channels + first..][..(width - 1) * channels + lanes];
                            let from = self.plane[y * width..].iter().zip(self.block.row(self.input, y));
                            for (to, (plane, input)) in row.chunks_mut(channels).zip(from) {
                                let input = load(whole!(input, copy));
                                let value = input.mul_add(scale, shift);
                                let inside = value.simd_gt(low) & value.simd_lt(high);
                                let passed = inside.select(load(plane), zero);
                                sum += passed;
                                spread = passed.mul_add(input - center, spread);
                                if lanes == BLOCK {
                                    passed.store_slice(&mut to[channel..][..V::LEN]);
                                } else if channel < lanes {
                                    passed.store_slice(&mut made[channel..][..V::LEN]);
                                    let count = V::LEN.min(lanes - channel);
                                    to[channel..][..count].copy_from_slice(&made[channel..][..count]);
                                }
                            }
                        }
                        sum.store_slice(&mut sums[0][channel..][..V::LEN]);
                        spread.store_slice(&mut sums[1][channel..][..V::LEN]);
                    }
                },
            );
        }
    }
    let constants = [affine.scale, affine.shift, center].map(|v| block_of(&v[block.first..], block.lanes));
    let pass = Mask { block, constants, clamp: affine.clamp, plane, input };
    let mut sums = [[0.0; BLOCK]; 2];
    with_vector!(level, pass.run((gradient, &mut sums)));
    sums
}
