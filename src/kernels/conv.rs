//! Dense and grouped convolution: the pointwise tile over the rows of a padded ring.
//!
//! The taps of one kernel row are neighbours in memory, `KW * C` floats, when neither dilation nor groups pull them
//! apart; a tile sums one such *segment* after another (nine floats times three rows for the stem of a network).
//! Input rows pass through a ring of as many rows as the kernel is high, with zeros to their left and right and one
//! row of zeros, so the patches of the outputs are never written out.

use fearless_simd::prelude::*;

use super::ring::Ring;
use super::tile::{Patches, panels_over_rows, with_tile};
use super::{BLOCK, Clamp, PackedWeights, Pixels, PixelsMut};
use crate::shape::Conv2dGeometry;

/// Floats of the ring that [`conv`] needs as scratch for `channels` input channels.
#[must_use]
pub fn conv_scratch_len(geometry: &Conv2dGeometry, channels: usize) -> usize {
    (geometry.ring_rows() + 1).saturating_mul(geometry.padded_width()).saturating_mul(channels)
}

/// The input rows that [`conv`] keeps from one call to the next, with their padding.
#[derive(Debug)]
pub struct KeptRows<'a> {
    geometry: Conv2dGeometry,
    rows: &'a mut [f32],
    ring: Ring,
}

impl<'a> KeptRows<'a> {
    /// No rows yet, in `scratch` of [`conv_scratch_len`] floats.
    ///
    /// # Panics
    ///
    /// If `scratch` is shorter.
    #[must_use]
    pub fn new(geometry: &Conv2dGeometry, channels: usize, scratch: &'a mut [f32]) -> Self {
        let rows = &mut scratch[..conv_scratch_len(geometry, channels)];
        rows.fill(0.0);
        Self { geometry: *geometry, rows, ring: Ring::default() }
    }
}

/// One group of a convolution: `K` input channels from `first_input` on to the packed output channels.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Weights of `KH * KW * K` inputs, in that order.
    pub weights: PackedWeights<'a>,
    /// The group's first channel of the input.
    pub first_input: usize,
    /// Its number of input channels.
    pub inputs: usize,
}

/// Computes the output rows from `first_row` on that fit into `output`, for one group; see
/// [`reference::conv`](super::reference::conv) for the formula.
///
/// Shapes: `input [H, W, C]`; `output [rows, OW, N]`, the group's channels alone (start the slice at the first). The
/// lanes that the last vector has beyond `N` are written too when the output is blocked. Calls that share `kept` read
/// the same input, and their rows follow each other.
///
/// # Panics
///
/// If the weights do not fit the geometry or the output, a slice is shorter than its shape says, `kept` is of another
/// geometry or further down, `output` is not whole rows, or this machine cannot run the level the weights are packed
/// for.
pub fn conv(
    geometry: &Conv2dGeometry,
    group: &Group<'_>,
    input: Pixels<'_, f32>,
    clamp: Clamp<f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
    kept: &mut KeptRows<'_>,
) {
    let weights = &group.weights;
    let [rows, columns] = output.size;
    assert_eq!(input.size, geometry.input, "input is not the geometry's map");
    assert!(group.first_input + group.inputs <= input.channels, "group beyond the input's channels");
    assert_eq!(weights.inputs(), geometry.taps() * group.inputs, "weights do not fit the kernel");
    assert_eq!(output.channels, weights.outputs(), "output does not fit the weights");
    assert_eq!(columns, geometry.output[1], "output is not whole rows");
    assert!(first_row + rows <= geometry.output[0], "rows beyond the output map");
    weights.check_layout(output);
    let kept_len = conv_scratch_len(geometry, input.channels);
    assert!(kept.geometry == *geometry && kept.rows.len() == kept_len, "rows kept for another convolution");
    with_tile!(weights.level(), run(geometry, group, input, clamp, first_row, output, kept));
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "those of `conv` and the level's token")]
fn run<S: Simd, V: SimdFloat<S, Element = f32>, const R1: usize, const R2: usize, const R3: usize>(
    simd: S,
    g: &Conv2dGeometry,
    group: &Group<'_>,
    input: Pixels<'_, f32>,
    clamp: Clamp<f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
    kept: &mut KeptRows<'_>,
) {
    let row_len = g.padded_width() * input.channels;
    let KeptRows { rows: kept, ring, .. } = kept;
    for line in 0..output.size[0] {
        let rows = ring.advance(g, first_row + line, |row, slot| {
            copy_row(g, input, row, &mut kept[slot * row_len..][..row_len]);
        });
        let data = &mut output.data[line * output.strides.row..];
        let mut output = PixelsMut { data, size: [1, g.output[1]], ..*output };
        let apart = g.dilation[1] != 1 || group.inputs != input.channels;
        let depth = g.kernel[1] * group.inputs;
        let patches = Patches {
            data: &kept[group.first_input..],
            row_len,
            rows,
            kernel_rows: g.kernel[0],
            depth,
            run: if apart { group.inputs } else { depth },
            run_step: g.dilation[1] * input.channels,
            step: g.stride[1] * input.channels,
            line_step: 0,
        };
        panels_over_rows::<S, V, R1, R2, R3>(simd, group.weights, patches, None, clamp, &mut output);
    }
}

/// Copies row `row` of the input into the ring, channels-last, between the zeros.
fn copy_row(g: &Conv2dGeometry, input: Pixels<'_, f32>, row: usize, slot: &mut [f32]) {
    let (width, channels, strides) = (g.input[1], input.channels, input.strides);
    let from = &input.data[row * strides.row..];
    let to = &mut slot[g.before[1] * channels..][..width * channels];
    if strides.pixel == channels && strides.block == BLOCK {
        to.copy_from_slice(&from[..width * channels]);
        return;
    }
    for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
        for (block, to) in to.chunks_mut(BLOCK).enumerate() {
            to.copy_from_slice(&from[pixel * strides.pixel + block * strides.block..][..to.len()]);
        }
    }
}
