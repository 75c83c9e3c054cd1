//! The steps of a compiled network and how each runs.
//!
//! A step writes one value. Its output is cut into parts, stretches of memory of their own, which threads share out;
//! every part has scratch of its own. The order of all sums is the same however many parts there are.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::format::{Format, Order};
use super::fused::{ChannelsFused, RowsFused};
use super::graph::Function;
use crate::kernels::{self, BLOCK, Clamp, Group, KeptRows, PackedWeights, Pixels, PixelsMut, SimdLevel};
use crate::shape::Conv2dGeometry;
use crate::{Result, Runtime, Tensor};

/// Weights of `inputs` by `outputs` inside the packed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) start: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Packed {
    /// Floats of a linear layer: the bias, then the weights as they are.
    pub(super) fn plain_len(self) -> usize {
        (self.inputs + 1) * self.outputs
    }
}

/// A convolution without its window: packed weights, and the range of its outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) packed: Packed,
    pub(super) clamp: Clamp<f32>,
}

pub(super) enum Work {
    Rows(Box<RowsFused>),
    Channels(Box<ChannelsFused>),
    /// Weights for all parts, or for each.
    Pointwise(Vec<Product>),
    /// For each part two pointwise convolutions to add, of a half of the inputs each, and whether two threads compute
    /// them at once.
    Halves {
        parts: Vec<[Packed; 2]>,
        at_once: bool,
    },
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
            Self::Halves { .. } => "halves",
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
    pub(super) fn pixels(&self) -> Pixels<'a, f32> {
        self.format.pixels(self.data)
    }

    /// Rows `rows` of it.
    pub(super) fn rows(&self, rows: &Range<usize>) -> Pixels<'a, f32> {
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
    pub(super) far: usize,
    /// Whether parts go to the threads of the pool that this runs in.
    pub(super) parallel: bool,
}

impl Context<'_> {
    pub(super) fn panels(&self, packed: Packed) -> PackedWeights<'_> {
        let from = &self.weights[packed.start..];
        PackedWeights::from_packed_blocked(self.level, packed.inputs, packed.outputs, from).with_far(self.far)
    }
}

impl Step {
    /// Units of the output that parts are made of.
    fn units(&self) -> usize {
        match self.output.format.order {
            // A linear layer's outputs in blocks, the last of them cut short.
            _ if matches!(self.work, Work::Linear(_)) => self.output.format.blocks(),
            Order::Planar => self.output.format.blocks(),
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
        let unit = if matches!(self.work, Work::Linear(_)) { BLOCK } else { format.part_len() };
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
            Work::Halves { parts, at_once } => {
                format.clear_border(output, last);
                let residual = residual.map(|map| map.blocks(units.start, parts[part][0].outputs));
                let at_once = *at_once && context.parallel;
                add_halves(context, parts[part], at_once, input, residual, format, output, scratch);
            }
            Work::Dense(geometry, products) => {
                format.clear_border(output, last);
                let (product, rows) = match format.order {
                    Order::Planar => (products[part], 0..format.size[0]),
                    _ => (products[0], units),
                };
                let mut output = format.part_mut(output, rows.len(), product.packed.outputs);
                let mut kept = KeptRows::new(geometry, input.format.channels, scratch);
                dense(context, geometry, product, input.pixels(), rows.start, &mut output, &mut kept);
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
                    let mut kept = KeptRows::new(geometry, input.format.channels, scratch);
                    kernels::conv(geometry, &group, input.pixels(), *clamp, units.start, &mut output, &mut kept);
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

/// The first half of the inputs with the residual, then the second: the same sums whether both are computed at once or
/// not.
#[expect(clippy::too_many_arguments, reason = "a step's input, output and scratch")]
fn add_halves(
    context: Context<'_>,
    [first, second]: [Packed; 2],
    at_once: bool,
    input: Source<'_>,
    residual: Option<Pixels<'_, f32>>,
    format: &Format,
    output: &mut [f32],
    scratch: &mut [f32],
) {
    let sums = Format { channels: first.outputs, pads: None, ..*format };
    let (first_sums, second_sums) = scratch.split_at_mut(sums.len());
    let product = |half: Packed, block, added, format: &Format, output: &mut [f32]| {
        let mut output = format.part_mut(output, format.size[0], half.outputs);
        let input = input.blocks(block, half.inputs);
        kernels::pointwise(&context.panels(half), input, added, Clamp::none(), &mut output);
    };
    let middle = first.inputs / BLOCK;
    if at_once {
        Runtime::join(
            || product(first, 0, residual, &sums, first_sums),
            || product(second, middle, None, &sums, second_sums),
        );
        add_blocks(format, &sums, [first_sums, second_sums], output);
    } else {
        product(first, 0, residual, &sums, first_sums);
        product(second, middle, Some(sums.pixels(first_sums)), format, output);
    }
}

/// Adds two planar maps without zeros around them, a half of their blocks on each of two threads.
fn add_blocks(format: &Format, from: &Format, sums: [&[f32]; 2], output: &mut [f32]) {
    let [len, to_len] = [from.part_len(), format.part_len()];
    let left = format.pads.map_or(0, |[left, _]| left) * BLOCK;
    let add = |[first, second]: [&[f32]; 2], output: &mut [f32]| {
        let blocks = first.chunks_exact(len).zip(second.chunks_exact(len));
        for ((first, second), output) in blocks.zip(output.chunks_exact_mut(to_len)) {
            let rows = first.chunks_exact(from.strides().row).zip(second.chunks_exact(from.strides().row));
            for ((first, second), output) in rows.zip(output.chunks_mut(format.strides().row)) {
                let pairs = first.iter().zip(second);
                output[left..].iter_mut().zip(pairs).for_each(|(output, (first, second))| *output = first + second);
            }
        }
    };
    let middle = from.blocks() / 2;
    let (left_output, right_output) = output.split_at_mut(middle * to_len);
    let [first, second] = sums.map(|sums| sums[..from.len()].split_at(middle * len));
    Runtime::join(|| add([first.0, second.0], left_output), || add([first.1, second.1], right_output));
}

pub(super) fn dense(
    context: Context<'_>,
    geometry: &Conv2dGeometry,
    Product { packed, clamp }: Product,
    input: Pixels<'_, f32>,
    first_row: usize,
    output: &mut PixelsMut<'_, f32>,
    kept: &mut KeptRows<'_>,
) {
    let group = Group { weights: context.panels(packed), first_input: 0, inputs: input.channels };
    kernels::conv(geometry, &group, input, clamp, first_row, output, kept);
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
