//! Depthwise convolutions with what comes before and after them, a part of the map at a time.

use alloc::vec::Vec;
use core::ops::Range;

use super::format::Format;
use super::step::{Context, Product, Source, dense};
use crate::kernels::{self, BLOCK, KeptRows, PackedDepthwise, Pixels, PixelsMut};
use crate::shape::Conv2dGeometry;

/// What gives a depthwise convolution its rows.
#[derive(Clone, Debug)]
pub(super) enum Producer {
    /// They are the input, with its padding.
    Input,
    Pointwise(Product),
    Dense(Conv2dGeometry, Product),
}

/// Depthwise convolution with what comes before and after it, a few rows at a time: the rows before it live in a ring
/// and those after it in a strip, both small enough for the caches.
#[derive(Clone, Debug)]
pub(super) struct RowsFused {
    pub(super) producer: Producer,
    pub(super) ring: Format,
    pub(super) geometry: Conv2dGeometry,
    pub(super) depthwise: Product,
    pub(super) project: Option<Product>,
    /// Output rows at a time, as a map.
    pub(super) strip: Format,
}

/// Depthwise convolution with the expansion before it, a few blocks of channels at a time.
#[derive(Clone, Debug)]
pub(super) struct ChannelsFused {
    /// One for each [`ChannelsFused::GROUP`] blocks of a part; none if the input has the rows.
    pub(super) expand: Vec<Product>,
    pub(super) plane: Format,
    pub(super) geometry: Conv2dGeometry,
    pub(super) depthwise: Product,
}

impl ChannelsFused {
    /// Blocks of channels at a time: the widest panel of weights.
    pub(super) const GROUP: usize = 3;
}

impl RowsFused {
    /// Floats of scratch: of the dense convolution, the ring and the strip.
    pub(super) fn scratch_lens(&self, input_channels: usize) -> [usize; 3] {
        let (dense, ring) = match &self.producer {
            Producer::Input => (0, 0),
            Producer::Pointwise(_) => (0, self.ring.len()),
            Producer::Dense(geometry, _) => (kernels::conv_scratch_len(geometry, input_channels), self.ring.len()),
        };
        [dense.div_ceil(BLOCK).saturating_mul(BLOCK), ring, if self.project.is_some() { self.strip.len() } else { 0 }]
    }

    /// Output rows `rows`, which start at `output`.
    #[expect(clippy::too_many_arguments, reason = "a step's input, output and scratch")]
    pub(super) fn run(
        &self,
        context: Context<'_>,
        input: Source<'_>,
        residual: Option<Source<'_>>,
        rows: Range<usize>,
        format: &Format,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let g = &self.geometry;
        let [dense_len, ring_len, strip_len] = self.scratch_lens(input.format.channels);
        let (dense_scratch, scratch) = scratch.split_at_mut(dense_len);
        let (ring, scratch) = scratch.split_at_mut(ring_len);
        let strip = &mut scratch[..strip_len];
        if ring_len > 0 {
            self.ring.clear_border(ring, true);
        }
        let weights = &context.weights[self.depthwise.packed.start..];
        let weights = PackedDepthwise::from_packed_blocked(g.taps(), self.depthwise.packed.outputs, weights);
        let mut kept = match &self.producer {
            Producer::Dense(geometry, _) => Some(KeptRows::new(geometry, input.format.channels, dense_scratch)),
            _ => None,
        };
        let mut next = 0;
        for first in rows.clone().step_by(self.strip.size[0]) {
            let lines = first..(first + self.strip.size[0]).min(rows.end);
            let needed = g.input_rows(lines.clone());
            let mut y = needed.start.max(next);
            // Rows that stay together in the ring are made together.
            while y < needed.end && ring_len > 0 {
                let place = y % self.ring.size[0];
                let count = (needed.end - y).min(self.ring.size[0] - place);
                let data = &mut ring[place * self.ring.part_len()..][..count * self.ring.part_len()];
                let mut made = self.ring.part_mut(data, count, self.ring.channels);
                match &self.producer {
                    Producer::Input => {}
                    Producer::Pointwise(Product { packed, clamp }) => {
                        kernels::pointwise(
                            &context.panels(*packed),
                            input.rows(&(y..y + count)),
                            None,
                            *clamp,
                            &mut made,
                        );
                    }
                    Producer::Dense(geometry, product) => {
                        let kept = kept.as_mut().expect("made for this producer");
                        dense(context, geometry, *product, input.pixels(), y, &mut made, kept);
                    }
                }
                y += count;
            }
            next = needed.end;
            let padded = match self.producer {
                Producer::Input => input.format.padded(input.data, g.before[1]),
                _ => self.ring.padded(ring, g.before[1]),
            };
            let at = (first - rows.start) * format.strides().row;
            let depthwise = |output: &mut PixelsMut<'_, f32>| {
                kernels::depthwise_in_place(context.level, g, &weights, padded, self.depthwise.clamp, first, output);
            };
            let mut output = format.part_mut(&mut output[at..], lines.len(), format.channels);
            if let Some(Product { packed, clamp }) = self.project {
                depthwise(&mut self.strip.part_mut(strip, lines.len(), self.strip.channels));
                let made = Source { data: strip, format: self.strip };
                let made = Pixels { size: [lines.len(), self.strip.size[1]], ..made.pixels() };
                let residual = residual.map(|map| map.rows(&lines));
                kernels::pointwise(&context.panels(packed), made, residual, clamp, &mut output);
            } else {
                depthwise(&mut output);
            }
        }
    }
}

impl ChannelsFused {
    /// Blocks `blocks` of the output, which start at `output`; `group` is the first's expansion.
    #[expect(clippy::too_many_arguments, reason = "a step's input, output and scratch")]
    pub(super) fn run(
        &self,
        context: Context<'_>,
        input: Source<'_>,
        blocks: Range<usize>,
        mut group: usize,
        format: &Format,
        output: &mut [f32],
        plane: &mut [f32],
    ) {
        let g = &self.geometry;
        let channels = self.depthwise.packed.outputs;
        if !self.expand.is_empty() {
            self.plane.clear_border(&mut plane[..self.plane.len()], true);
        }
        for first in blocks.clone().step_by(Self::GROUP) {
            let count = Self::GROUP.min(blocks.end - first);
            let width = (count * BLOCK).min(channels - first * BLOCK);
            let padded = if let Some(Product { packed, clamp }) = self.expand.get(group) {
                let mut made = self.plane.part_mut(plane, self.plane.size[0], width);
                kernels::pointwise(&context.panels(*packed), input.pixels(), None, *clamp, &mut made);
                self.plane.padded(plane, g.before[1])
            } else {
                input.format.padded(&input.data[first * input.format.strides().block..], g.before[1])
            };
            let weights = &context.weights[self.depthwise.packed.start + first * BLOCK * (g.taps() + 1)..];
            let weights = PackedDepthwise::from_packed_blocked(g.taps(), width, weights);
            let at = (first - blocks.start) * format.strides().block;
            let mut output = format.part_mut(&mut output[at..], g.output[0], width);
            kernels::depthwise_in_place(context.level, g, &weights, padded, self.depthwise.clamp, 0, &mut output);
            group += 1;
        }
    }
}
