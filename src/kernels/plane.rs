//! Blocks of 16 channels between maps and planes, with what is to be applied on the way.
//!
//! A depthwise convolution in training works on one block of channels at a time, whose pixels, one cache line each, lie
//! far apart in a channels-last map and side by side in a plane. Many blocks are moved at once, pixel by pixel as they
//! lie in the map: memory delivers long stretches fastest, and constants and sums are in the first-level cache. With a
//! few vectors of a whole row at a time, and their constants and sums in registers, depthwise layers took 1.1 to 1.4
//! times as long (Zen 3).

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use fearless_simd::f32x8;
use fearless_simd::prelude::*;
use fearless_simd::{Level, f32x4};

use super::columns::{Affine, around_mean};
use super::prefetch::prefetch_far;
use super::{BLOCK, Clamp, SimdLevel};

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
    /// Their number.
    pub lanes: usize,
    /// Pixels from one row of the plane to the next.
    pub row: usize,
    /// Pixels from one block of the plane to the next.
    pub block: usize,
}

/// Two sums of each channel of a group, in its blocks.
pub type Sums<'a> = [&'a mut [[f32; BLOCK]]; 2];

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

/// A block of channels of a pixel.
#[derive(Clone, Copy)]
struct At {
    /// Which block of the group it is.
    block: usize,
    /// Its place in the map, in elements.
    map: usize,
    /// Its place in the plane, in blocks.
    plane: usize,
    /// How many of its channels there are.
    lanes: usize,
}

impl GroupOf {
    /// Per-channel values of the group, block by block.
    fn blocks<'a>(&self, values: &'a [f32]) -> &'a [[f32; BLOCK]] {
        &values[self.first..].as_chunks().0[..self.lanes.div_ceil(BLOCK)]
    }

    /// Every block of every pixel, as they lie in the map.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(At)) {
        for y in 0..self.size[0] {
            for x in 0..self.size[1] {
                let pixel = (y * self.size[1] + x) * self.channels + self.first;
                for block in 0..self.lanes.div_ceil(BLOCK) {
                    visit(At {
                        block,
                        map: pixel + block * BLOCK,
                        plane: block * self.block + y * self.row + x,
                        lanes: BLOCK.min(self.lanes - block * BLOCK),
                    });
                }
            }
        }
    }
}

/// A block of a map; a copy, with zeros in the lanes that the map lacks.
#[inline(always)]
fn block_of<'a>(map: &'a [f32], at: At, copy: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
    prefetch_far(map, at.map);
    if at.lanes == BLOCK {
        return map[at.map..].first_chunk().expect("a whole block");
    }
    copy[..at.lanes].copy_from_slice(&map[at.map..][..at.lanes]);
    copy
}

/// Writes those lanes of a block that the map has.
#[inline(always)]
fn put_block(map: &mut [f32], at: At, write: impl FnOnce(&mut [f32; BLOCK])) {
    prefetch_far(map, at.map);
    if at.lanes == BLOCK {
        write(map[at.map..].first_chunk_mut().expect("a whole block"));
        return;
    }
    let mut copy = [0.0; BLOCK];
    write(&mut copy);
    map[at.map..][..at.lanes].copy_from_slice(&copy[..at.lanes]);
}

/// Loads a vector of a block.
#[inline(always)]
fn loader<S: Simd, V: SimdFloat<S, Element = f32>>(simd: S) -> impl Fn(&[f32; BLOCK], usize) -> V + Copy {
    #[inline(always)]
    move |block, v| V::from_slice(simd, &block[v * V::LEN..][..V::LEN])
}

/// `plane[y, x, c] = clamp(scale[c] * map[y, x, first + c] + shift[c])`, a copy without an affine; anything for
/// channels the last block lacks. Constants of channels come in whole blocks.
///
/// # Panics
///
/// If a slice is too short, or this machine cannot run `level`.
pub fn fill_plane(
    level: SimdLevel,
    group: GroupOf,
    affine: Option<Affine<'_, f32>>,
    map: &[f32],
    plane: &mut [[f32; BLOCK]],
) {
    struct Fill<'a> {
        group: GroupOf,
        affine: Option<[&'a [[f32; BLOCK]]; 2]>,
        clamp: Clamp<f32>,
        map: &'a [f32],
    }
    impl Fill<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let load = loader::<S, V>(simd);
                    let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
                    let mut copy = [0.0; BLOCK];
                    let Some([scale, shift]) = self.affine else {
                        self.group.each(
                            #[inline(always)]
                            |at| plane[at.plane] = *block_of(self.map, at, &mut copy),
                        );
                        return;
                    };
                    self.group.each(
                        #[inline(always)]
                        |at| {
                            let from = block_of(self.map, at, &mut copy);
                            let (scale, shift, to) = (&scale[at.block], &shift[at.block], &mut plane[at.plane]);
                            unroll!(v < BLOCK / V::LEN, 4, {
                                let value = load(from, v).mul_add(load(scale, v), load(shift, v));
                                high.min(low.max(value)).store_slice(&mut to[v * V::LEN..][..V::LEN]);
                            });
                        },
                    );
                },
            );
        }
    }
    let constants = affine.map(|affine| [affine.scale, affine.shift].map(|values| group.blocks(values)));
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
        constants: [&'a [[f32; BLOCK]]; 3],
        gradient: &'a [f32],
        input: &'a [f32],
    }
    impl Combine<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(&self, simd: S, plane: &mut [[f32; BLOCK]]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let load = loader::<S, V>(simd);
                    let [a, b, c] = self.constants;
                    let (mut copy, mut other) = ([0.0; BLOCK], [0.0; BLOCK]);
                    self.group.each(
                        #[inline(always)]
                        |at| {
                            let gradient = block_of(self.gradient, at, &mut copy);
                            let input = block_of(self.input, at, &mut other);
                            let (a, b, c) = (&a[at.block], &b[at.block], &c[at.block]);
                            let to = &mut plane[at.plane];
                            unroll!(v < BLOCK / V::LEN, 4, {
                                let rest = load(input, v).mul_add(load(b, v), load(c, v));
                                let value = load(gradient, v).mul_add(load(a, v), rest);
                                value.store_slice(&mut to[v * V::LEN..][..V::LEN]);
                            });
                        },
                    );
                },
            );
        }
    }
    let pass = Combine { group, constants: constants.map(|values| group.blocks(values)), gradient, input };
    with_vector!(level, pass.run(plane));
}

/// Writes a plane back into a gradient's map, 0 where the affine of the input lies outside its clamp, and adds up what
/// [`columns::mask`](super::columns::mask) does: `sums` become those of the gradient, and of it
/// times the input's distance from the center.
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
    sums: Sums<'_>,
) {
    struct Mask<'a> {
        group: GroupOf,
        constants: [&'a [[f32; BLOCK]]; 3],
        clamp: Clamp<f32>,
        plane: &'a [[f32; BLOCK]],
        input: &'a [f32],
    }
    impl Mask<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(
            &self,
            simd: S,
            (gradient, [sum, spread]): (&mut [f32], Sums<'_>),
        ) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let load = loader::<S, V>(simd);
                    let (low, high) = (V::splat(simd, self.clamp.low), V::splat(simd, self.clamp.high));
                    let zero = V::splat(simd, 0.0);
                    let [scale, shift, center] = self.constants;
                    let mut copy = [0.0; BLOCK];
                    self.group.each(
                        #[inline(always)]
                        |at| {
                            let input = block_of(self.input, at, &mut copy);
                            let plane = &self.plane[at.plane];
                            let (scale, shift, center) = (&scale[at.block], &shift[at.block], &center[at.block]);
                            let (sum, spread) = (&mut sum[at.block], &mut spread[at.block]);
                            put_block(
                                gradient,
                                at,
                                #[inline(always)]
                                |to| {
                                    unroll!(v < BLOCK / V::LEN, 4, {
                                        let lanes = v * V::LEN..(v + 1) * V::LEN;
                                        let input = load(input, v);
                                        let value = input.mul_add(load(scale, v), load(shift, v));
                                        let inside = value.simd_gt(low) & value.simd_lt(high);
                                        let passed = inside.select(load(plane, v), zero);
                                        let distance = input - load(center, v);
                                        (load(sum, v) + passed).store_slice(&mut sum[lanes.clone()]);
                                        passed
                                            .mul_add(distance, load(spread, v))
                                            .store_slice(&mut spread[lanes.clone()]);
                                        passed.store_slice(&mut to[lanes]);
                                    });
                                },
                            );
                        },
                    );
                },
            );
        }
    }
    let constants = [affine.scale, affine.shift, center].map(|values| group.blocks(values));
    let pass = Mask { group, constants, clamp: affine.clamp, plane, input };
    let [sum, spread] = sums.map(|values| zeros(group, values));
    with_vector!(level, pass.run((gradient, [sum, spread])));
}

/// The group's blocks of sums, of nothing yet.
fn zeros(group: GroupOf, sums: &mut [[f32; BLOCK]]) -> &mut [[f32; BLOCK]] {
    let sums = &mut sums[..group.lanes.div_ceil(BLOCK)];
    sums.fill([0.0; BLOCK]);
    sums
}

/// Writes a plane back into a map; `moments` become the mean and squares of its pixels, as in
/// [`columns::moments`](super::columns::moments).
///
/// # Panics
///
/// As [`fill_plane`].
pub fn spread_plane(
    level: SimdLevel,
    group: GroupOf,
    plane: &[[f32; BLOCK]],
    map: &mut [f32],
    moments: Option<Sums<'_>>,
) {
    struct Spread<'a> {
        group: GroupOf,
        plane: &'a [[f32; BLOCK]],
    }
    impl Spread<'_> {
        #[inline(always)]
        fn run<S: Simd, V: SimdFloat<S, Element = f32>>(
            &self,
            simd: S,
            (map, moments): (&mut [f32], Option<Sums<'_>>),
        ) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let load = loader::<S, V>(simd);
                    let Some([sum, squares]) = moments else {
                        self.group.each(
                            #[inline(always)]
                            |at| put_block(map, at, |to| *to = self.plane[at.plane]),
                        );
                        return;
                    };
                    self.group.each(
                        #[inline(always)]
                        |at| {
                            let (from, first) = (&self.plane[at.plane], &self.plane[at.block * self.group.block]);
                            let (sum, squares) = (&mut sum[at.block], &mut squares[at.block]);
                            put_block(
                                map,
                                at,
                                #[inline(always)]
                                |to| {
                                    unroll!(v < BLOCK / V::LEN, 4, {
                                        let lanes = v * V::LEN..(v + 1) * V::LEN;
                                        let value = load(from, v);
                                        let distance = value - load(first, v);
                                        (load(sum, v) + distance).store_slice(&mut sum[lanes.clone()]);
                                        distance
                                            .mul_add(distance, load(squares, v))
                                            .store_slice(&mut squares[lanes.clone()]);
                                        value.store_slice(&mut to[lanes]);
                                    });
                                },
                            );
                        },
                    );
                },
            );
        }
    }
    let pass = Spread { group, plane };
    let Some(moments) = moments else {
        with_vector!(level, pass.run((map, None)));
        return;
    };
    let [mean, squares] = moments.map(|values| zeros(group, values));
    with_vector!(level, pass.run((map, Some([&mut *mean, &mut *squares]))));
    for (plane, (mean, squares)) in plane.chunks(group.block).zip(mean.iter_mut().zip(squares)) {
        around_mean(group.size[0] * group.size[1], &plane[0], mean, squares);
    }
}
