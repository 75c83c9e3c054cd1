//! The steps of a compiled network and how each runs.
//!
//! A step writes one value. Its output is cut into parts, stretches of memory of their own, which threads share out;
//! every part has scratch of its own. The order of all sums is the same however many parts there are.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::format::{Format, Order};
use super::graph::Function;
use crate::kernels::{self, BLOCK, Clamp, Group, PackedDepthwise, PackedWeights, Pixels, PixelsMut, SimdLevel};
use crate::shape::Conv2dGeometry;
use crate::{Result, Runtime, Tensor};

/// Weights of `inputs` by `outputs` inside the packed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) start: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// A convolution without its window: packed weights, and the range of its outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) packed: Packed,
    pub(super) clamp: Clamp<f32>,
}

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

pub(super) enum Work {
    Rows(RowsFused),
    Channels(ChannelsFused),
    /// Weights for all parts, or for each.
    Pointwise(Vec<Product>),
    Dense(Conv2dGeometry, Vec<Product>),
    Grouped(Conv2dGeometry, Vec<Product>),
    /// One row of inputs; weights for each part.
    Linear(Vec<Product>),
    GlobalAverage,
    GlobalMax,
    /// To another order, with every channel repeated, and cut to a range.
    Copy {
        repeat: usize,
        clamp: Clamp<f32>,
    },
    Softmax,
    Opaque(&'static str, Arc<Function>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows(_) => "rows",
            Self::Channels(_) => "channels",
            Self::Pointwise(_) => "pointwise",
            Self::Dense(..) => "dense",
            Self::Grouped(..) => "grouped",
            Self::Linear(_) => "linear",
            Self::GlobalAverage => "average",
            Self::GlobalMax => "max",
            Self::Copy { .. } => "copy",
            Self::Softmax => "softmax",
            Self::Opaque(kind, _) => kind,
        })
    }
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Input,
    Output,
    Buffer(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) format: Format,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) kernel: String,
    pub(super) multiply_adds: u64,
    pub(super) work: Work,
    pub(super) input: Slot,
    pub(super) residual: Option<Slot>,
    pub(super) output: Slot,
    /// Parts of the output that may run at once.
    pub(super) parts: usize,
    /// Floats of scratch for each.
    pub(super) scratch: usize,
    /// The buffer of all scratch.
    pub(super) scratch_buffer: Option<usize>,
}

/// A value with its elements.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: &'a [f32],
    pub(super) format: Format,
}

impl<'a> Source<'a> {
    fn pixels(&self) -> Pixels<'a, f32> {
        self.format.pixels(self.data)
    }

    /// Rows `rows` of it.
    fn rows(&self, rows: &Range<usize>) -> Pixels<'a, f32> {
        let map = self.pixels();
        Pixels { data: &map.data[rows.start * map.strides.row..], size: [rows.len(), map.size[1]], ..map }
    }

    /// Channels from block `first` on.
    fn blocks(&self, first: usize, channels: usize) -> Pixels<'a, f32> {
        let map = self.pixels();
        Pixels { data: &map.data[first * map.strides.block..], channels, ..map }
    }
}

/// What all steps of a run share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) level: SimdLevel,
    pub(super) weights: &'a [f32],
    /// Whether parts go to the threads of the pool that this runs in.
    pub(super) parallel: bool,
}

impl Context<'_> {
    fn panels(&self, packed: Packed) -> PackedWeights<'_> {
        PackedWeights::from_packed_blocked(self.level, packed.inputs, packed.outputs, &self.weights[packed.start..])
    }
}

impl Step {
    /// Units of the output that parts are made of.
    fn units(&self) -> usize {
        match self.output.format.order {
            Order::Planar => self.output.format.blocks(),
            // A pixel in blocks of channels, the last of them cut short.
            Order::Last if self.output.format.size == [1, 1] => self.output.format.blocks(),
            Order::Last | Order::Rows => self.output.format.size[0],
        }
    }

    /// The units of a part.
    pub(super) fn part(&self, part: usize) -> Range<usize> {
        let cut = |part| self.units() * part / self.parts;
        cut(part)..cut(part + 1)
    }

    /// Where a part starts in the output.
    fn start(&self, part: usize) -> usize {
        let format = &self.output.format;
        let unit = if format.order == Order::Last && format.size == [1, 1] { BLOCK } else { format.part_len() };
        if part == self.parts { format.len() } else { self.units() * part / self.parts * unit }
    }

    pub(super) fn run(
        &self,
        context: Context<'_>,
        runtime: &Runtime,
        input: Source<'_>,
        residual: Option<Source<'_>>,
        output: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<()> {
        match &self.work {
            Work::GlobalAverage => kernels::global_average(input.pixels(), output),
            Work::GlobalMax => kernels::global_max(input.pixels(), output),
            Work::Copy { repeat, clamp } => {
                let format = &self.output.format;
                format.clear_border(output, true);
                copy(input.pixels(), *repeat, *clamp, &mut whole(format, output));
            }
            Work::Softmax => {
                output.copy_from_slice(input.data);
                output.chunks_exact_mut(self.output.format.channels).for_each(kernels::reference::softmax);
            }
            Work::Opaque(_, function) => {
                let Format { size: [h, w], channels, .. } = input.format;
                let result = function(&Tensor::from_slice([1, h, w, channels], input.data)?, runtime)?;
                let Format { size: [h, w], channels, .. } = self.output.format;
                if result.shape() != [1, h, w, channels] {
                    let expected = format_args!("[1, {h}, {w}, {channels}], as the layer said before");
                    return Err(crate::Error::shape("run", "output of a layer", &result.shape(), expected));
                }
                output.copy_from_slice(result.as_slice());
            }
            _ => self.share(context, 0..self.parts, output, scratch, &|part, output, scratch| {
                self.run_part(context, input, residual, part, output, scratch);
            }),
        }
        Ok(())
    }

    /// Runs parts, on as many threads as there are if the context says so.
    fn share(
        &self,
        context: Context<'_>,
        parts: Range<usize>,
        output: &mut [f32],
        scratch: &mut [f32],
        work: &(impl Fn(usize, &mut [f32], &mut [f32]) + Sync),
    ) {
        if parts.len() == 1 {
            work(parts.start, output, scratch);
            return;
        }
        let middle = parts.start + parts.len() / 2;
        let (left, right) = output.split_at_mut(self.start(middle) - self.start(parts.start));
        if context.parallel {
            let (left_scratch, right_scratch) = scratch.split_at_mut(self.scratch * (middle - parts.start));
            Runtime::join(
                || self.share(context, parts.start..middle, left, left_scratch, work),
                || self.share(context, middle..parts.end, right, right_scratch, work),
            );
            return;
        }
        self.share(context, parts.start..middle, left, scratch, work);
        self.share(context, middle..parts.end, right, scratch, work);
    }

    fn run_part(
        &self,
        context: Context<'_>,
        input: Source<'_>,
        residual: Option<Source<'_>>,
        part: usize,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let format = &self.output.format;
        let last = part + 1 == self.parts;
        let units = self.part(part);
        match &self.work {
            Work::Rows(fused) => {
                format.clear_border(output, last);
                fused.run(context, input, residual, units, format, output, scratch);
            }
            Work::Channels(fused) => {
                format.clear_border(output, last);
                let before: usize = (0..part).map(|part| self.part(part).len().div_ceil(ChannelsFused::GROUP)).sum();
                fused.run(context, input, units, before, format, output, scratch);
            }
            Work::Pointwise(products) => {
                format.clear_border(output, last);
                if format.order == Order::Planar {
                    let Product { packed, clamp } = products[part];
                    let residual = residual.map(|map| map.blocks(units.start, packed.outputs));
                    let mut output = format.part_mut(output, format.size[0], packed.outputs);
                    kernels::pointwise(&context.panels(packed), input.pixels(), residual, clamp, &mut output);
                } else {
                    let Product { packed, clamp } = products[0];
                    let residual = residual.map(|map| map.rows(&units));
                    let mut output = format.part_mut(output, units.len(), packed.outputs);
                    kernels::pointwise(&context.panels(packed), input.rows(&units), residual, clamp, &mut output);
                }
            }
            Work::Dense(geometry, products) => {
                format.clear_border(output, last);
                let (product, rows) = match format.order {
                    Order::Planar => (products[part], 0..format.size[0]),
                    _ => (products[0], units),
                };
                let mut output = format.part_mut(output, rows.len(), product.packed.outputs);
                dense(context, geometry, product, input.pixels(), rows.start, &mut output, scratch);
            }
            Work::Grouped(geometry, products) => {
                let inputs = input.format.channels / products.len();
                for (index, Product { packed, clamp }) in products.iter().enumerate() {
                    let from = &context.weights[packed.start..];
                    let weights = PackedWeights::from_packed(context.level, packed.inputs, packed.outputs, from);
                    let group = Group { weights, first_input: index * inputs, inputs };
                    let data = &mut output[index * packed.outputs..];
                    let size = [units.len(), format.size[1]];
                    let mut output = PixelsMut::strided(data, size, packed.outputs, format.strides());
                    kernels::conv(geometry, &group, input.pixels(), *clamp, units.start, &mut output, scratch);
                }
            }
            Work::Linear(products) => {
                let Product { packed, clamp } = products[part];
                let (bias, weights) = context.weights[packed.start..].split_at(packed.outputs);
                let weights = &weights[..packed.inputs * packed.outputs];
                let input = &input.data[..packed.inputs];
                kernels::linear(context.level, input, weights, Some(bias), clamp, &mut output[..packed.outputs]);
            }
            _ => unreachable!("runs as a whole"),
        }
    }
}

impl RowsFused {
    /// Floats of scratch: of the dense convolution, the ring and the strip.
    pub(super) fn scratch_lens(&self, input_channels: usize) -> [usize; 3] {
        let (dense, ring) = match &self.producer {
            Producer::Input => (0, 0),
            Producer::Pointwise(_) => (0, self.ring.len()),
            Producer::Dense(geometry, _) => (kernels::conv_scratch_len(geometry, input_channels), self.ring.len()),
        };
        [dense.next_multiple_of(BLOCK), ring, if self.project.is_some() { self.strip.len() } else { 0 }]
    }

    /// Output rows `rows`, which start at `output`.
    #[expect(clippy::too_many_arguments, reason = "a step's input, output and scratch")]
    fn run(
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
                        dense(context, geometry, *product, input.pixels(), y, &mut made, dense_scratch);
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
    fn run(
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
            let padded = match self.expand.get(group) {
                Some(Product { packed, clamp }) => {
                    let mut made = self.plane.part_mut(plane, self.plane.size[0], width);
                    kernels::pointwise(&context.panels(*packed), input.pixels(), None, *clamp, &mut made);
                    self.plane.padded(plane, g.before[1])
                }
                None => {
                    let at = first * input.format.strides().block;
                    input.format.padded(&input.data[at..], g.before[1])
                }
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

fn dense(
    context: Context<'_>,
    geometry: &Conv2dGeometry,
    Product { packed, clamp }: Product,
    input: Pixels<'_, f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
    scratch: &mut [f32],
) {
    let group = Group { weights: context.panels(packed), first_input: 0, inputs: input.channels };
    kernels::conv(geometry, &group, input, clamp, first_row, output, scratch);
}

/// The whole of a value, to write.
fn whole<'a>(format: &Format, data: &'a mut [f32]) -> PixelsMut<'a, f32> {
    match format.order {
        Order::Last => PixelsMut::strided(data, format.size, format.channels, format.strides()),
        _ => format.part_mut(data, format.size[0], format.channels),
    }
}

/// Output channel `c * repeat + r` is input channel `c`.
fn copy(input: Pixels<'_, f32>, repeat: usize, clamp: Clamp<f32>, output: &mut PixelsMut<'_, f32>) {
    let [from, to] = [input.strides, output.strides];
    for y in 0..output.size[0] {
        for x in 0..output.size[1] {
            let input = &input.data[y * from.row + x * from.pixel..];
            let output_pixel = &mut output.data[y * to.row + x * to.pixel..];
            for first in (0..output.channels).step_by(BLOCK) {
                let width = BLOCK.min(output.channels - first);
                let output = &mut output_pixel[to.channel(first)..][..width];
                if repeat == 1 {
                    output.copy_from_slice(&input[from.channel(first)..][..width]);
                } else {
                    for (index, output) in output.iter_mut().enumerate() {
                        *output = input[from.channel((first + index) / repeat)];
                    }
                }
                for value in output {
                    *value = clamp.apply(*value);
                }
            }
        }
    }
}
