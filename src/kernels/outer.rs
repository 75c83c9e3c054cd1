//! The gradient of a pointwise convolution by its weight: a sum of outer products over pixels.
//!
//! Differs from [`reference::outer`](super::reference::outer) in two ways. A register tile of the result, some inputs
//! by up to three vectors of outputs, stays in registers while the pixels of a piece pass by; each pixel costs a tile
//! its vectors' loads and a broadcast per input:
//!
//! ```text
//! for m in pixels:
//!     for k in inputs of the tile:
//!         sums[k] += input[m, k] * gradient[m, n..]
//! ```
//!
//! And a few pixels' vectors of the gradient are copied together where many inputs meet them: pixels of 1024 channels
//! are 4096 bytes apart, so the first-level cache holds eight of them.

use fearless_simd::prelude::*;

use super::{BLOCK, Pixels, SimdLevel};

/// Most pixels whose vectors are copied together: 12 KiB, of three vectors of 16, beside the inputs.
const COPIED: usize = 64;
/// Least tiles that a copy has to serve.
const TILES: usize = 16;

/// `sums[k, n] += sum over m of input[m, k] * gradient[m, n]`
///
/// Shapes: `input [M, K]`; `gradient [M, N]` with a pitch of whole blocks, whose lanes beyond `N` are read; `sums [K,
/// P]` with `N` rounded up to whole blocks as `P`, whose lanes beyond `N` are written.
///
/// # Panics
///
/// If the pixel counts differ, a pitch or a slice is too short, or this machine cannot run `level`.
pub fn outer(level: SimdLevel, input: Pixels<'_, f32>, gradient: Pixels<'_, f32>, sums: &mut [f32]) {
    let width = gradient.channels.next_multiple_of(BLOCK);
    assert_eq!(input.count(), gradient.count(), "pixel counts differ");
    assert!(gradient.pitch() >= width && sums.len() == input.channels * width, "sums are not whole blocks");
    match level.token() {
        // 24 sums, three vectors of the gradient and a broadcast: 28 of 32 registers; 8 divides every width of a
        // network.
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Some(fearless_simd::Level::Avx512(simd)) => {
            run::<_, fearless_simd::f32x16<_>, 14, 12, 8>(simd, input, gradient, sums);
        }
        // Twelve sums, two vectors and a broadcast: 15 of 16; of three vectors, nine.
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Some(fearless_simd::Level::Avx2(simd)) => {
            run::<_, fearless_simd::f32x8<_>, 8, 6, 3>(simd, input, gradient, sums);
        }
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Some(level @ (fearless_simd::Level::Sse2(_) | fearless_simd::Level::Sse4_2(_))) => {
            let simd = level.as_sse2().expect("SSE4.2 includes SSE2");
            run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, input, gradient, sums);
        }
        #[cfg(target_arch = "aarch64")]
        Some(fearless_simd::Level::Neon(simd)) => {
            run::<_, fearless_simd::f32x4<_>, 8, 8, 7>(simd, input, gradient, sums);
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Some(fearless_simd::Level::WasmSimd128(simd)) => {
            run::<_, fearless_simd::f32x4<_>, 8, 4, 3>(simd, input, gradient, sums);
        }
        Some(fearless_simd::Level::Fallback(simd)) => {
            run::<_, fearless_simd::f32x4<_>, 4, 4, 2>(simd, input, gradient, sums);
        }
        _ => unreachable!("this machine cannot run {level}"),
    }
}

/// Tiles of one, two or three vectors have `R1`, `R2` or `R3` inputs; those with most sums come first.
#[inline(always)]
fn run<S: Simd, V: SimdFloat<S, Element = f32>, const R1: usize, const R2: usize, const R3: usize>(
    simd: S,
    input: Pixels<'_, f32>,
    gradient: Pixels<'_, f32>,
    sums: &mut [f32],
) {
    let vectors = gradient.channels.div_ceil(V::LEN);
    let mut vector = 0;
    while vector < vectors {
        let at = vector * V::LEN;
        // No lonely last vector: two and two rather than three and one, three rather than two and one.
        vector += match vectors - vector {
            1 => {
                rows::<S, V, R1, 1>(simd, input, gradient, at, sums);
                1
            }
            3 => {
                rows::<S, V, R3, 3>(simd, input, gradient, at, sums);
                3
            }
            5.. if const { 3 * R3 >= 2 * R2 } => {
                rows::<S, V, R3, 3>(simd, input, gradient, at, sums);
                3
            }
            _ => {
                rows::<S, V, R2, 2>(simd, input, gradient, at, sums);
                2
            }
        };
    }
}

/// All inputs by `VECTORS` vectors of outputs from `at` on.
#[inline(always)]
fn rows<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    input: Pixels<'_, f32>,
    gradient: Pixels<'_, f32>,
    at: usize,
    sums: &mut [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            let (lanes, pitch, count) = (VECTORS * V::LEN, gradient.pitch(), input.count());
            let width = gradient.channels.next_multiple_of(BLOCK);
            let mut gradient = (&gradient.data[at..], pitch);
            let mut copy;
            if count <= COPIED && input.channels >= TILES * ROWS {
                copy = [0.0; COPIED * 3 * BLOCK];
                for (to, from) in copy.chunks_exact_mut(lanes).zip(gradient.0.chunks(pitch)).take(count) {
                    to.copy_from_slice(&from[..lanes]);
                }
                gradient = (&copy, lanes);
            }
            let mut first = 0;
            while first < input.channels {
                let (inputs, sums) = ((input, first), (&mut sums[first * width + at..], width));
                first += match input.channels - first {
                    left if left >= ROWS => {
                        tile::<S, V, ROWS, VECTORS>(simd, inputs, gradient, sums);
                        ROWS
                    }
                    left if left >= 4 && ROWS > 4 => {
                        tile::<S, V, 4, VECTORS>(simd, inputs, gradient, sums);
                        4
                    }
                    left if left >= 2 && ROWS > 2 => {
                        tile::<S, V, 2, VECTORS>(simd, inputs, gradient, sums);
                        2
                    }
                    _ => {
                        tile::<S, V, 1, VECTORS>(simd, inputs, gradient, sums);
                        1
                    }
                };
            }
        },
    );
}

/// `ROWS` inputs from the given one on by `VECTORS` vectors, the first of each pixel of `gradient` and each row of
/// `sums`, which come with their pitches.
#[inline(always)]
fn tile<S: Simd, V: SimdFloat<S, Element = f32>, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    (input, first): (Pixels<'_, f32>, usize),
    (gradient, pitch): (&[f32], usize),
    (sums, width): (&mut [f32], usize),
) {
    let mut tile = [[V::splat(simd, 0.0); VECTORS]; ROWS];
    let Some(last) = input.count().checked_sub(1) else { return };
    let (mut inputs, input_pitch) = (&input.data[first..][..last * input.pitch() + ROWS], input.pitch());
    let (mut gradients, lanes) = (&gradient[..last * pitch + VECTORS * V::LEN], VECTORS * V::LEN);
    // Slices that end with the last pixel: fewer instructions beside the multiply-adds than with chunks.
    while let (Some(input), Some(gradient)) = (inputs.get(..ROWS), gradients.get(..lanes)) {
        let mut vectors = [tile[0][0]; VECTORS];
        unroll!(v < VECTORS, 3, { vectors[v] = V::from_slice(simd, &gradient[v * V::LEN..][..V::LEN]) });
        unroll!(r < ROWS, 14, {
            let value = V::splat(simd, input[r]);
            unroll!(v < VECTORS, 3, { tile[r][v] = value.mul_add(vectors[v], tile[r][v]) });
        });
        let (Some(next), Some(next_gradient)) = (inputs.get(input_pitch..), gradients.get(pitch..)) else { break };
        (inputs, gradients) = (next, next_gradient);
    }
    unroll!(r < ROWS, 14, {
        let sums = &mut sums[r * width..][..VECTORS * V::LEN];
        unroll!(v < VECTORS, 3, {
            let sums = &mut sums[v * V::LEN..][..V::LEN];
            (V::from_slice(simd, sums) + tile[r][v]).store_slice(sums);
        });
    });
}
