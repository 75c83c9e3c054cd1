//! Blocks of 16 channels between maps and planes, with what is to be applied on the way.
//!
//! A depthwise convolution in training works on one block of channels at a time, whose pixels, one cache line each, lie
//! far apart in a channels-last map and side by side in a plane. Up to [`GROUP`] channels are moved at once, for memory
//! delivers long stretches faster: row by row, and of a row four vectors of each pixel, whose constants and sums stay
//! in registers.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::f32x8;
use fearless_simd::prelude::*;
use fearless_simd::{Level, f32x4};

use super::columns::Affine;
use super::{BLOCK, Clamp, SimdLevel};

/// Most channels of a [`GroupOf`]: 1 KiB of each pixel. A training step takes 1.3 times as long with one block, and no
/// less with more than sixteen.
pub const GROUP: usize = 16 * BLOCK;

/// Vectors that a pass takes through the map at a time, if there are as many.
const VECTORS: usize = 4;

/// Channels `first` to `first + lanes` of whole rows of a channels-last map.
///
/// In a plane the group's blocks follow each other, each with its pixels row after row.
#[derive(Clone, Copy, Debug)]
pub struct GroupOf {
    /// Rows and columns.
    pub size: [usize; 2],
    /// Elements of a pixel of the map.
    pub channels: usize,
    /// The first channel.
    pub first: usize,
    /// Their number, at most [`GROUP`].
    pub lanes: usize,
    /// Pixels from one row of the plane to the next.
    pub row: usize,
    /// Pixels from one block of the plane to the next.
    pub block: usize,
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

/// Calls `$pass.part::<S, V, N>(simd, y, first, ..)` for all rows and all of the group's channels: [`VECTORS`] vectors
/// of them at a time, then those of one block.
macro_rules! each_part {
    ($pass:ident.part($simd:ident, $argument:expr)) => {
        $simd.vectorize(
            #[inline(always)]
            || {
                let lanes = $pass.group.lanes;
                for y in 0..$pass.group.size[0] {
                    let mut first = 0;
                    while first < lanes {
                        if lanes - first >= VECTORS * V::LEN {
                            $pass.part::<S, V, VECTORS>($simd, [y, first], $argument);
                            first += VECTORS * V::LEN;
                        } else {
                            match V::LEN {
                                16 => $pass.part::<S, V, 1>($simd, [y, first], $argument),
                                8 => $pass.part::<S, V, 2>($simd, [y, first], $argument),
                                _ => $pass.part::<S, V, 4>($simd, [y, first], $argument),
                            }
                            first += BLOCK;
                        }
                    }
                }
            },
        )
    };
}

impl GroupOf {
    /// Per-channel constants of the group, with zeros for the channels it lacks.
    fn constants(&self, values: &[f32]) -> [f32; GROUP] {
        let mut group = [0.0; GROUP];
        group[..self.lanes].copy_from_slice(&values[self.first..][..self.lanes]);
        group
    }

    /// Where the map has the channels from `first` of the group on of a pixel, and how many of `most` there are.
    #[inline(always)]
    fn in_map(&self, [y, x]: [usize; 2], first: usize, most: usize) -> (usize, usize) {
        ((y * self.size[1] + x) * self.channels + self.first + first, most.min(self.lanes - first))
    }

    /// Which pixel of the plane has the channels from `first` of the group on.
    #[inline(always)]
    fn in_plane(&self, [y, x]: [usize; 2], first: usize) -> usize {
        first / BLOCK * self.block + y * self.row + x
    }
}

/// `most` channels of a pixel; a copy with zeros, if the map has fewer, which is so in its last block alone.
#[inline(always)]
fn pixel<'a>(map: &'a [f32], (at, count): (usize, usize), most: usize, copy: &'a mut [f32; BLOCK]) -> &'a [f32] {
    if count == most {
        return &map[at..][..most];
    }
    copy[..count].copy_from_slice(&map[at..][..count]);
    &copy[..most]
}

/// `N` vectors of per-channel constants.
#[inline(always)]
fn vectors<S: Simd, V: SimdFloat<S, Element = f32>, const N: usize>(simd: S, values: &[f32]) -> [V; N] {
    let mut all = [V::splat(simd, 0.0); N];
    unroll!(v < N, 5, { all[v] = V::from_slice(simd, &values[v * V::LEN..][..V::LEN]) });
    all
}

/// `plane[y, x, c] = clamp(scale[c] * map[y, x, first + c] + shift[c])`; anything for channels the last block lacks.
///
/// # Panics
///
/// If a slice is too short, the group has more than [`GROUP`] channels, or this machine cannot run `level`.
pub fn fill_plane(
    level: SimdLevel,
    group: GroupOf,
    affine: Option<Affine<'_, f32>>,
    map: &[f32],
    plane: &mut [[f32; BLOCK]],
) {
    struct Fill<'a> {
        group: GroupOf,
        affine: [[f32; GROUP]; 2],
        clamp: Clamp<f32>,
        map: &'a [f32],
    }
    impl Fill<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            each_part!(self.part(simd, plane));
        }

        #[inline(always)]
        fn part<S: Simd, V: SimdFloat<S, Element = f32>, const N: usize>(
            &self,
            simd: S,
            [y, first]: [usize; 2],
            plane: &mut [[f32; BLOCK]],
        ) {
            let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
            let scale: [V; N] = vectors(simd, &self.affine[0][first..]);
            let shift: [V; N] = vectors(simd, &self.affine[1][first..]);
            let mut copy = [0.0; BLOCK];
            for x in 0..self.group.size[1] {
                let at = self.group.in_map([y, x], first, N * V::LEN);
                let from = pixel(self.map, at, N * V::LEN, &mut copy);
                unroll!(v < N, 5, {
                    let value = V::from_slice(simd, &from[v * V::LEN..][..V::LEN]).mul_add(scale[v], shift[v]);
                    let to = &mut plane[self.group.in_plane([y, x], first + v * V::LEN)];
                    high.min(low.max(value)).store_slice(&mut to[v * V::LEN % BLOCK..][..V::LEN]);
                });
            }
        }
    }
    let identity = [[1.0; GROUP], [0.0; GROUP]];
    let constants = affine.map_or(identity, |affine| [affine.scale, affine.shift].map(|v| group.constants(v)));
    let clamp = affine.map_or(Clamp::none(), |affine| affine.clamp);
    let pass = Fill { group, affine: constants, clamp, map };
    with_vector!(level, pass.run(plane));
}

/// `plane[y, x, c] = a[c] * gradient[y, x, first + c] + b[c] * input[y, x, first + c] + c[c]`; as [`fill_plane`].
///
/// # Panics
///
/// As there.
pub fn combine_plane(
    level: SimdLevel,
    group: GroupOf,
    constants: [&[f32]; 3],
    [gradient, input]: [&[f32]; 2],
    plane: &mut [[f32; BLOCK]],
) {
    struct Combine<'a> {
        group: GroupOf,
        constants: [[f32; GROUP]; 3],
        gradient: &'a [f32],
        input: &'a [f32],
    }
    impl Combine<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            each_part!(self.part(simd, plane));
        }

        #[inline(always)]
        fn part<S: Simd, V: SimdFloat<S, Element = f32>, const N: usize>(
            &self,
            simd: S,
            [y, first]: [usize; 2],
            plane: &mut [[f32; BLOCK]],
        ) {
            let [a, b, c]: [[V; N]; 3] = self.constants.each_ref().map(|values| vectors(simd, &values[first..]));
            let (mut copy, mut other) = ([0.0; BLOCK], [0.0; BLOCK]);
            for x in 0..self.group.size[1] {
                let at = self.group.in_map([y, x], first, N * V::LEN);
                let gradient = pixel(self.gradient, at, N * V::LEN, &mut copy);
                let input = pixel(self.input, at, N * V::LEN, &mut other);
                unroll!(v < N, 5, {
                    let load = |pixel: &[f32]| V::from_slice(simd, &pixel[v * V::LEN..][..V::LEN]);
                    let value = load(gradient).mul_add(a[v], load(input).mul_add(b[v], c[v]));
                    let to = &mut plane[self.group.in_plane([y, x], first + v * V::LEN)];
                    value.store_slice(&mut to[v * V::LEN % BLOCK..][..V::LEN]);
                });
            }
        }
    }
    let pass = Combine { group, constants: constants.map(|values| group.constants(values)), gradient, input };
    with_vector!(level, pass.run(plane));
}

/// Writes a plane back into a gradient's map, 0 where the affine of the input lies outside its clamp, and adds up what
/// [`columns::mask`](super::columns::mask) does: returns the sums of the gradient, and of it times the input's distance
/// from the center.
///
/// # Panics
///
/// As [`fill_plane`].
pub fn mask_plane(
    level: SimdLevel,
    group: GroupOf,
    affine: Affine<'_, f32>,
    center: &[f32],
    (plane, input): (&[[f32; BLOCK]], &[f32]),
    gradient: &mut [f32],
) -> [[f32; GROUP]; 2] {
    struct Mask<'a> {
        group: GroupOf,
        constants: [[f32; GROUP]; 3],
        clamp: Clamp<f32>,
        plane: &'a [[f32; BLOCK]],
        input: &'a [f32],
    }
    impl Mask<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(
            &self,
            simd: S,
            (gradient, sums): (&mut [f32], &mut [[f32; GROUP]; 2]),
        ) {
            each_part!(self.part(simd, (&mut *gradient, &mut *sums)));
        }

        #[inline(always)]
        fn part<S: Simd, V: SimdFloat<S, Element = f32>, const N: usize>(
            &self,
            simd: S,
            [y, first]: [usize; 2],
            (gradient, sums): (&mut [f32], &mut [[f32; GROUP]; 2]),
        ) {
            let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
            let zero = V::splat(simd, 0.0);
            let [scale, shift, center]: [[V; N]; 3] =
                self.constants.each_ref().map(|values| vectors(simd, &values[first..]));
            let [mut sum, mut spread]: [[V; N]; 2] = sums.each_ref().map(|values| vectors(simd, &values[first..]));
            let (mut copy, mut made) = ([0.0; BLOCK], [0.0; BLOCK]);
            for x in 0..self.group.size[1] {
                let (at, count) = self.group.in_map([y, x], first, N * V::LEN);
                let input = pixel(self.input, (at, count), N * V::LEN, &mut copy);
                let whole = count == N * V::LEN;
                let to = if whole { &mut gradient[at..][..N * V::LEN] } else { &mut made[..N * V::LEN] };
                unroll!(v < N, 5, {
                    let input = V::from_slice(simd, &input[v * V::LEN..][..V::LEN]);
                    let plane = &self.plane[self.group.in_plane([y, x], first + v * V::LEN)];
                    let plane = V::from_slice(simd, &plane[v * V::LEN % BLOCK..][..V::LEN]);
                    let value = input.mul_add(scale[v], shift[v]);
                    let passed = (value.simd_gt(low) & value.simd_lt(high)).select(plane, zero);
                    sum[v] += passed;
                    spread[v] = passed.mul_add(input - center[v], spread[v]);
                    passed.store_slice(&mut to[v * V::LEN..][..V::LEN]);
                });
                if !whole {
                    gradient[at..][..count].copy_from_slice(&made[..count]);
                }
            }
            unroll!(v < N, 5, {
                sum[v].store_slice(&mut sums[0][first + v * V::LEN..][..V::LEN]);
                spread[v].store_slice(&mut sums[1][first + v * V::LEN..][..V::LEN]);
            });
        }
    }
    let constants = [affine.scale, affine.shift, center].map(|values| group.constants(values));
    let pass = Mask { group, constants, clamp: affine.clamp, plane, input };
    let mut sums = [[0.0; GROUP]; 2];
    with_vector!(level, pass.run((gradient, &mut sums)));
    sums
}

/// Writes a plane back into a map.
///
/// # Panics
///
/// As [`fill_plane`].
pub fn spread_plane(level: SimdLevel, group: GroupOf, plane: &[[f32; BLOCK]], map: &mut [f32]) {
    struct Spread<'a> {
        group: GroupOf,
        plane: &'a [[f32; BLOCK]],
    }
    impl Spread<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, map: &mut [f32]) {
            each_part!(self.part(simd, map));
        }

        #[inline(always)]
        fn part<S: Simd, V: SimdFloat<S, Element = f32>, const N: usize>(
            &self,
            simd: S,
            [y, first]: [usize; 2],
            map: &mut [f32],
        ) {
            for x in 0..self.group.size[1] {
                let (at, count) = self.group.in_map([y, x], first, N * V::LEN);
                if count < N * V::LEN {
                    let from = &self.plane[self.group.in_plane([y, x], first)];
                    map[at..][..count].copy_from_slice(&from[..count]);
                    continue;
                }
                let to = &mut map[at..][..N * V::LEN];
                unroll!(v < N, 5, {
                    let from = &self.plane[self.group.in_plane([y, x], first + v * V::LEN)];
                    let value = V::from_slice(simd, &from[v * V::LEN % BLOCK..][..V::LEN]);
                    value.store_slice(&mut to[v * V::LEN..][..V::LEN]);
                });
            }
        }
    }
    let pass = Spread { group, plane };
    with_vector!(level, pass.run(map));
}
