//! From operators to steps: what is fused, in which order each value lies, and where. It is this long because every
//! choice by shape is here, in one place (but for those inside a kernel, which are in its file):
//!
//! - A depthwise convolution is fused with what comes before it (a pointwise expansion or a dense stem) and the
//!   pointwise projection after it. Over a large map it goes by rows ([`RowsFused`]), so that the widened map never
//!   leaves the caches; over one of at most 256 pixels by channels ([`ChannelsFused`]), since there it is the weights
//!   that fill the caches, and each is read once.
//! - A pointwise convolution of at most 64 pixels with many more inputs than outputs is the sum of two, of half of the
//!   inputs each: threads share the inputs that each has made ([`HALVED`]).
//! - A value's order follows: rows where rows are written, else planes of channels.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use super::format::{Format, Order, PLANAR};
use super::fused::{ChannelsFused, Producer, RowsFused};
use super::graph::{Convolution, Graph, Node, Operator, Value};
use super::memory::{Buffer, Memory, place};
use super::pack::{Jobs, Packing};
use super::step::{Packed, Place, Product, Slot, Step, Work};
use crate::kernels::{self, BLOCK, Clamp, SimdLevel};
use crate::{Error, Result};

/// Most input pixels of a depthwise convolution that goes by channels on one thread.
const BY_CHANNELS: usize = PLANAR;

/// The same for any number of threads, of the output: 7 x 7, whose rows cannot be shared out evenly. Channels can, but
/// then all threads read what each has written, and writing a line that is in the cache of another core is slow: on two
/// threads, blocks of 14 x 14 took 1.25 times as long by channels as by rows.
const SHARED_BY_CHANNELS: usize = 64;

/// Inputs to an output from which a pointwise convolution of at most [`SHARED_BY_CHANNELS`] pixels has its inputs
/// halved rather than its outputs: threads then read of each other's caches sums of `outputs` channels rather than half
/// of the inputs. 960 to 160 channels at 7 x 7 went from 75 to 44 us.
const HALVED: usize = 2;

/// Most floats of a map or of scratch, 4 GiB: an absurd padding becomes an error before it becomes an allocation.
const MOST_FLOATS: usize = 1 << 30;

/// Output rows of a strip. They share what they read of the ring, and the largest ring, nine rows of 112 x 96 floats,
/// still fits the second-level cache. One to seven rows are within three per cent of each other; four were the best.
const STRIP: usize = 4;

/// What a network compiles to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) level: SimdLevel,
    pub(super) threads: usize,
    pub(super) input: [usize; 3],
    pub(super) output: [usize; 3],
    pub(super) steps: Vec<Step>,
    pub(super) weights: Memory,
    /// How far ahead weights are prefetched: the longest linear layer's, so that those before it fetch it in time.
    pub(super) far: usize,
    /// Where each buffer starts, and its length.
    pub(super) buffers: Vec<[usize; 2]>,
    pub(super) arena_len: usize,
}

struct Planner<'g, 'w> {
    graph: &'g Graph<'w>,
    output: Value,
    level: SimdLevel,
    threads: usize,
    done: Vec<bool>,
    slots: Vec<Option<Slot>>,
    steps: Vec<Step>,
    buffers: Vec<Buffer>,
    packing: Jobs,
}

impl Plan {
    pub(super) fn new(graph: &Graph<'_>, output: Value, level: SimdLevel, threads: usize) -> Result<Self> {
        let mut slots: Vec<Option<Slot>> = graph.sizes.iter().map(|_| None).collect();
        slots[0] = Some(Slot { place: Place::Input, format: Format::last(graph.sizes[0]) });
        let mut planner = Planner {
            graph,
            output,
            level,
            threads,
            done: graph.nodes.iter().map(|_| false).collect(),
            slots,
            steps: Vec::new(),
            buffers: Vec::new(),
            packing: Jobs::default(),
        };
        for node in 0..graph.nodes.len() {
            if !planner.done[node] {
                planner.node(node);
            }
        }
        planner.deliver();
        planner.finish()
    }
}

/// What a convolution ends in once a normalisation and a clamp after it are fused.
struct Tail {
    clamp: Clamp<f32>,
    output: Value,
    norm: Option<usize>,
    clamp_node: Option<usize>,
}

impl<'g, 'w> Planner<'g, 'w> {
    fn convolution(&self, node: usize) -> Option<&'g Convolution<'w>> {
        match &self.graph.nodes[node].operator {
            Operator::Convolution(convolution) => Some(convolution),
            _ => None,
        }
    }

    /// Nodes that read a value.
    fn readers(&self, value: Value) -> impl Iterator<Item = usize> {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.input == value || node.residual == Some(value)).map(|(index, _)| index)
    }

    /// The one node that reads a value, as its input.
    fn only_reader(&self, value: Value) -> Option<usize> {
        let mut readers = self.readers(value);
        let reader = readers.next()?;
        let node = &self.graph.nodes[reader];
        let alone = readers.next().is_none() && value != self.output && node.residual != Some(value);
        alone.then_some(reader)
    }

    fn tail(&self, node: usize) -> Tail {
        let c = self.convolution(node).expect("a convolution");
        let output = self.graph.nodes[node].output;
        let mut tail = Tail { clamp: c.filter.clamp, output, norm: None, clamp_node: None };
        if tail.clamp == Clamp::none()
            && self.graph.nodes[node].residual.is_none()
            && let Some(reader) = self.only_reader(tail.output)
            && self.graph.nodes[reader].residual.is_none()
            && let Some(norm) = self.convolution(reader).filter(|c| c.is_norm())
        {
            (tail.norm, tail.clamp, tail.output) = (Some(reader), norm.filter.clamp, self.graph.nodes[reader].output);
        }
        if tail.clamp == Clamp::none()
            && let Some(reader) = self.only_reader(tail.output)
            && let Operator::Clamp(clamp) = self.graph.nodes[reader].operator
        {
            (tail.clamp_node, tail.clamp, tail.output) = (Some(reader), clamp, self.graph.nodes[reader].output);
        }
        tail
    }

    fn close(&mut self, node: usize) -> Tail {
        let tail = self.tail(node);
        self.done[node] = true;
        for fused in [tail.norm, tail.clamp_node].into_iter().flatten() {
            self.done[fused] = true;
        }
        if let Some(norm) = tail.norm {
            self.packing.fold(node, norm);
        }
        tail
    }

    /// The depthwise convolution that alone reads what `node` gives and can be fused with it.
    fn depthwise_after(&self, node: usize) -> Option<usize> {
        self.only_reader(self.tail(node).output).filter(|&reader| {
            self.convolution(reader).is_some_and(|c| c.is_depthwise() && c.filter.channels[0] == c.filter.channels[1])
        })
    }

    fn pointwise_after(&self, node: usize) -> Option<usize> {
        self.only_reader(self.tail(node).output).filter(|&r| self.convolution(r).is_some_and(Convolution::is_pointwise))
    }

    /// Whether a pointwise convolution has more outputs than inputs and feeds another depthwise one by rows: then its
    /// input is what should be stored, and it is the other's expansion.
    fn widens_for_the_next(&self, node: usize) -> bool {
        let Some(c) = self.convolution(node) else { return false };
        let [inputs, outputs] = c.filter.channels;
        let widens = inputs < outputs && c.geometry.output_pixels() > BY_CHANNELS;
        widens && self.graph.nodes[node].residual.is_none() && self.depthwise_after(node).is_some()
    }

    /// Zeros that the depthwise convolutions that read a value in place need around it.
    fn pads(&self, value: Value) -> Option<[usize; 2]> {
        let windows = self.readers(value).filter_map(|reader| self.convolution(reader).filter(|c| c.is_depthwise()));
        windows.map(|c| [c.geometry.before[1], c.geometry.after[1]]).reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])])
    }

    fn node(&mut self, index: usize) {
        let node: &'g Node<'w> = &self.graph.nodes[index];
        let size = self.graph.size(node.output);
        match &node.operator {
            Operator::Convolution(c) => self.any_convolution(index, c),
            Operator::GlobalAverage | Operator::GlobalMax => {
                self.done[index] = true;
                let input = self.slot(node.input);
                let (work, kernel) = match node.operator {
                    Operator::GlobalMax => (Work::GlobalMax, "f32-global-max"),
                    _ => (Work::GlobalAverage, "f32-global-average"),
                };
                let output = self.store(node.output, Format::last(size));
                self.push(&node.name, kernel, 0, work, input, output);
            }
            Operator::Clamp(clamp) => {
                self.done[index] = true;
                let input = self.slot(node.input);
                let format = Format { pads: self.pads(node.output), ..input.format };
                let format = if format.order == Order::Last { Format::last(size) } else { format };
                let output = self.store(node.output, format);
                self.push(&node.name, "f32-clamp", 0, Work::Copy { repeat: 1, clamp: *clamp }, input, output);
            }
            Operator::Softmax | Operator::Flatten | Operator::Opaque(..) => {
                self.done[index] = true;
                let input = self.last(node.input);
                let (work, kernel) = match &node.operator {
                    Operator::Softmax => (Work::Softmax, "f32-softmax"),
                    Operator::Opaque(kind, function) => (Work::Opaque(kind, function.clone()), *kind),
                    _ => {
                        // The same elements under another shape.
                        self.slots[node.output.0] = Some(Slot { format: Format::last(size), ..input });
                        return;
                    }
                };
                let output = self.store(node.output, Format::last(size));
                self.push(&node.name, kernel, 0, work, input, output);
            }
        }
    }

    fn any_convolution(&mut self, index: usize, c: &'g Convolution<'w>) {
        let node = &self.graph.nodes[index];
        let [inputs, outputs] = c.filter.channels;
        if c.is_depthwise() {
            if inputs == outputs {
                self.fused(None, index);
            } else {
                self.repeated(index, c);
            }
            return;
        }
        if c.filter.groups > 1 {
            let tail = self.close(index);
            let input = self.slot(node.input);
            let per_group = outputs / c.filter.groups;
            let products = (0..c.filter.groups).map(|group| {
                let packing = Packing::Panels { blocked: false };
                Product { packed: self.pack(index, packing, group * per_group, per_group), clamp: tail.clamp }
            });
            let products = products.collect();
            let output = self.store(tail.output, Format::last(self.graph.size(tail.output)));
            let scratch = kernels::conv_scratch_len(&c.geometry, inputs);
            let parts = self.threads.min(c.geometry.output[0]);
            let work = Work::Grouped(c.geometry, products);
            let step = self.push(&node.name, &c.kernel(tail.clamp), c.multiply_adds(), work, input, output);
            self.parts(step, parts, scratch);
            return;
        }
        let by_rows = c.geometry.output_pixels() > BY_CHANNELS;
        let fusable = node.residual.is_none() && (c.is_pointwise() || by_rows);
        if fusable && let Some(depthwise) = self.depthwise_after(index) {
            self.fused(Some(index), depthwise);
            return;
        }
        let tail = self.close(index);
        let size = self.graph.size(tail.output);
        if size[..2] == [1, 1] && c.is_pointwise() && node.residual.is_none() {
            self.linear(index, c, &tail);
            return;
        }
        let input = self.slot(node.input);
        let residual = node.residual.map(|value| self.blocked(value));
        let format = Format::blocked(size, self.pads(tail.output));
        let few = c.geometry.output_pixels() <= SHARED_BY_CHANNELS;
        if c.is_pointwise() && few && tail.clamp == Clamp::none() && inputs >= HALVED * outputs && inputs > BLOCK {
            self.halves(index, c, input, residual, tail.output, format);
            return;
        }
        let parts = self.threads.min(match format.order {
            Order::Planar => format.blocks(),
            Order::Last | Order::Rows => format.size[0],
        });
        let products = self.products(index, format.order, parts, tail.clamp);
        let output = self.store(tail.output, format);
        let (work, scratch) = if c.is_pointwise() {
            (Work::Pointwise(products), 0)
        } else {
            (Work::Dense(c.geometry, products), kernels::conv_scratch_len(&c.geometry, inputs))
        };
        let step = self.push(&node.name, &c.kernel(tail.clamp), c.multiply_adds(), work, input, output);
        self.steps[step].residual = residual;
        self.parts(step, parts, scratch);
    }

    /// Weights of a convolution whose output is cut into parts: one for all rows, or one for each part's channels.
    fn products(&mut self, node: usize, order: Order, parts: usize, clamp: Clamp<f32>) -> Vec<Product> {
        let packing = Packing::Panels { blocked: true };
        let outputs = self.graph.size(self.graph.nodes[node].output)[2];
        if order != Order::Planar {
            return Vec::from([Product { packed: self.pack(node, packing, 0, outputs), clamp }]);
        }
        let cut = |part: usize| (outputs.div_ceil(BLOCK) * part / parts * BLOCK).min(outputs);
        let parts = (0..parts).map(|part| [cut(part), cut(part + 1)]);
        parts.map(|[from, to]| Product { packed: self.pack(node, packing, from, to - from), clamp }).collect()
    }

    /// A pointwise convolution as the sum of two, of half of the inputs each: on an even number of threads the two are
    /// computed at once. One thread adds in the same order.
    fn halves(
        &mut self,
        node: usize,
        c: &Convolution<'_>,
        input: Slot,
        residual: Option<Slot>,
        output: Value,
        format: Format,
    ) {
        let [inputs, outputs] = c.filter.channels;
        let at_once = self.threads.is_multiple_of(2);
        let parts = if at_once { self.threads / 2 } else { self.threads }.min(format.blocks());
        let cut = |part: usize| (format.blocks() * part / parts * BLOCK).min(outputs);
        let half = inputs.div_ceil(BLOCK) / 2 * BLOCK;
        let packed = (0..parts).map(|part| {
            [0..half, half..inputs].map(|inputs| {
                self.pack_part(node, Packing::Panels { blocked: true }, [inputs, cut(part)..cut(part + 1)])
            })
        });
        let packed = packed.collect();
        let sums = Format { channels: format.blocks().div_ceil(parts) * BLOCK, pads: None, ..format };
        let output = self.store(output, format);
        let name = &self.graph.nodes[node].name;
        let work = Work::Halves { parts: packed, at_once };
        let step = self.push(name, &c.kernel(Clamp::none()), c.multiply_adds(), work, input, output);
        self.steps[step].residual = residual;
        self.parts(step, parts, sums.len() * if at_once { 2 } else { 1 });
    }

    fn linear(&mut self, index: usize, c: &Convolution<'_>, tail: &Tail) {
        let node = &self.graph.nodes[index];
        let input = self.last(node.input);
        let size = self.graph.size(tail.output);
        let output = self.store(tail.output, Format::last(size));
        let parts = self.threads.min(size[2].div_ceil(BLOCK));
        let cut = |part: usize| (size[2].div_ceil(BLOCK) * part / parts * BLOCK).min(size[2]);
        let products = (0..parts).map(|part| {
            let [from, to] = [cut(part), cut(part + 1)];
            Product { packed: self.pack(index, Packing::Plain, from, to - from), clamp: tail.clamp }
        });
        let work = Work::Linear(products.collect());
        let step = self.push(&node.name, "f32-linear", c.multiply_adds(), work, input, output);
        self.parts(step, parts, 0);
    }

    /// Depthwise with more outputs than inputs: every channel is repeated first.
    fn repeated(&mut self, index: usize, c: &Convolution<'_>) {
        let node = &self.graph.nodes[index];
        let input = self.slot(node.input);
        let [inputs, outputs] = c.filter.channels;
        let [h, w] = c.geometry.input;
        let pads = Some([c.geometry.before[1], c.geometry.after[1]]);
        let output = self.buffer(Format::blocked([h, w, outputs], pads));
        let work = Work::Copy { repeat: outputs / inputs, clamp: Clamp::none() };
        self.push(&format!("{}.repeat", node.name), "f32-copy", 0, work, input, output);
        self.depthwise(None, index, output);
    }

    /// A depthwise convolution with the producer before it.
    fn fused(&mut self, producer: Option<usize>, index: usize) {
        let c = self.convolution(index).expect("depthwise");
        let first = &self.graph.nodes[producer.unwrap_or(index)];
        let needed = [c.geometry.before[1], c.geometry.after[1]];
        let mut input = self.slot(first.input);
        let has_pads = |pads: Option<[usize; 2]>| pads.is_some_and(|pads| pads[0] >= needed[0] && pads[1] >= needed[1]);
        if producer.is_none() && (input.format.order == Order::Last || !has_pads(input.format.pads)) {
            let output = self.buffer(Format::blocked(self.graph.size(first.input), Some(needed)));
            let work = Work::Copy { repeat: 1, clamp: Clamp::none() };
            self.push(&format!("{}.pad", first.name), "f32-copy", 0, work, input, output);
            input = output;
        }
        self.depthwise(producer, index, input);
    }

    /// The steps of a depthwise convolution whose input, or whose producer's, is at `input`.
    fn depthwise(&mut self, producer: Option<usize>, index: usize, input: Slot) {
        let c = self.convolution(index).expect("depthwise");
        let g = c.geometry;
        let channels = c.filter.channels[1];
        let name = &self.graph.nodes[producer.unwrap_or(index)].name;
        let mut ids = Vec::new();
        let mut multiply_adds = c.multiply_adds();
        let before = producer.map(|node| {
            let tail = self.close(node);
            let c = self.convolution(node).expect("a convolution");
            ids.push(c.kernel(tail.clamp));
            multiply_adds += c.multiply_adds();
            (node, c, tail.clamp)
        });
        let tail = self.close(index);
        ids.push(c.kernel(tail.clamp));
        let depthwise = Product { packed: self.pack(index, Packing::Depthwise, 0, channels), clamp: tail.clamp };
        let pads = [g.before[1], g.after[1]];
        let [h, w] = g.input;

        // What a dense convolution makes, it makes row by row.
        let by_rows = before.as_ref().is_some_and(|(_, c, _)| !c.is_pointwise());
        let small = g.output_pixels() <= SHARED_BY_CHANNELS || self.threads == 1 && g.input_pixels() <= BY_CHANNELS;
        if small && !by_rows {
            let size = self.graph.size(tail.output);
            let format = Format { order: Order::Planar, ..Format::blocked(size, self.pads(tail.output)) };
            let output = self.store(tail.output, format);
            let parts = self.threads.min(format.blocks());
            let mut expand = Vec::new();
            if let Some((node, _, clamp)) = before {
                for part in 0..parts {
                    let [from, to] = [part, part + 1].map(|part| format.blocks() * part / parts);
                    for first in (from..to).step_by(ChannelsFused::GROUP) {
                        let last = (first + ChannelsFused::GROUP).min(to);
                        let [from, to] = [first * BLOCK, (last * BLOCK).min(channels)];
                        let packed = self.pack(node, Packing::Panels { blocked: true }, from, to - from);
                        expand.push(Product { packed, clamp });
                    }
                }
            }
            let width = ChannelsFused::GROUP * BLOCK;
            let plane = Format { order: Order::Planar, ..Format::blocked([h, w, width], Some(pads)) };
            let scratch = if expand.is_empty() { 0 } else { plane.len() };
            let work = Work::Channels(Box::new(ChannelsFused { expand, plane, geometry: g, depthwise }));
            let step = self.push(name, &ids.join("+"), multiply_adds, work, input, output);
            self.parts(step, parts, scratch);
            return;
        }

        let projection = self.pointwise_after(index).filter(|&node| {
            // What it adds may come later in the list.
            let residual = self.graph.nodes[node].residual;
            residual.is_none_or(|value| self.slots[value.0].is_some()) && !self.widens_for_the_next(node)
        });
        let strip_rows = STRIP.min(g.output[0]);
        let slots = (g.ring_rows() + (strip_rows - 1) * g.stride[0]).min(h.max(g.ring_rows()));
        let rows = |size: [usize; 3], pads| Format { order: Order::Rows, ..Format::blocked(size, pads) };
        let (mut output, mut residual, mut project) = (tail.output, None, None);
        if let Some(node) = projection {
            let tail = self.close(node);
            let c = self.convolution(node).expect("pointwise");
            let outputs = c.filter.channels[1];
            ids.push(c.kernel(tail.clamp));
            multiply_adds += c.multiply_adds();
            residual = self.graph.nodes[node].residual.map(|value| self.blocked(value));
            let packed = self.pack(node, Packing::Panels { blocked: true }, 0, outputs);
            project = Some(Product { packed, clamp: tail.clamp });
            output = tail.output;
        }
        let producer = match before {
            None => Producer::Input,
            Some((node, c, clamp)) => {
                let packed = self.pack(node, Packing::Panels { blocked: true }, 0, channels);
                let product = Product { packed, clamp };
                if c.is_pointwise() { Producer::Pointwise(product) } else { Producer::Dense(c.geometry, product) }
            }
        };
        let fused = RowsFused {
            producer,
            ring: rows([slots, w, channels], Some(pads)),
            geometry: g,
            depthwise,
            project,
            strip: rows([strip_rows, g.output[1], channels], None),
        };
        let scratch =
            fused.scratch_lens(input.format.channels).iter().fold(0, |sum: usize, &len| sum.saturating_add(len));
        let format = rows(self.graph.size(output), self.pads(output));
        let parts = self.threads.min(g.output[0]);
        let output = self.store(output, format);
        let step = self.push(name, &ids.join("+"), multiply_adds, Work::Rows(Box::new(fused)), input, output);
        self.steps[step].residual = residual;
        self.parts(step, parts, scratch);
    }

    /// Moves the last value to the user's slice.
    fn deliver(&mut self) {
        let slot = self.slot(self.output);
        let mut reads = self.steps.iter().flat_map(|step| [Some(step.input), step.residual]).flatten();
        let is_read = reads.any(|read| read.place == slot.place);
        let whole = Format::last(self.graph.size(self.output));
        match self.steps.last_mut() {
            Some(step) if step.output.place == slot.place && slot.format == whole && !is_read => {
                step.output.place = Place::Output;
                if let Place::Buffer(buffer) = slot.place {
                    self.buffers[buffer].len = 0;
                }
            }
            _ => {
                let output = Slot { place: Place::Output, format: whole };
                self.push("output", "f32-copy", 0, Work::Copy { repeat: 1, clamp: Clamp::none() }, slot, output);
            }
        }
    }

    fn slot(&self, value: Value) -> Slot {
        self.slots[value.0].expect("nodes are in order")
    }

    /// A value channels-last.
    fn last(&mut self, value: Value) -> Slot {
        let slot = self.slot(value);
        if slot.format.order == Order::Last {
            return slot;
        }
        let output = self.buffer(Format::last(self.graph.size(value)));
        self.push("channels last", "f32-copy", 0, Work::Copy { repeat: 1, clamp: Clamp::none() }, slot, output);
        output
    }

    /// A value in blocks, whose last one has room for whole vectors.
    fn blocked(&mut self, value: Value) -> Slot {
        let slot = self.slot(value);
        if slot.format.order != Order::Last {
            return slot;
        }
        let output = self.buffer(Format::blocked(self.graph.size(value), None));
        self.push("blocks", "f32-copy", 0, Work::Copy { repeat: 1, clamp: Clamp::none() }, slot, output);
        output
    }

    fn buffer(&mut self, format: Format) -> Slot {
        self.buffers.push(Buffer { len: format.len(), used: [usize::MAX, 0] });
        Slot { place: Place::Buffer(self.buffers.len() - 1), format }
    }

    fn store(&mut self, value: Value, format: Format) -> Slot {
        let slot = self.buffer(format);
        self.slots[value.0] = Some(slot);
        slot
    }

    fn push(&mut self, name: &str, kernel: &str, multiply_adds: u64, work: Work, input: Slot, output: Slot) -> usize {
        self.steps.push(Step {
            name: name.into(),
            kernel: kernel.into(),
            multiply_adds,
            work,
            input,
            residual: None,
            output,
            parts: 1,
            scratch: 0,
            scratch_buffer: None,
        });
        self.steps.len() - 1
    }

    fn parts(&mut self, step: usize, parts: usize, scratch: usize) {
        let scratch = scratch.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.steps[step].parts = parts.max(1);
        self.steps[step].scratch = scratch;
        if scratch > 0 {
            self.buffers.push(Buffer { len: scratch.saturating_mul(parts.max(1)), used: [step; 2] });
            self.steps[step].scratch_buffer = Some(self.buffers.len() - 1);
        }
    }

    fn pack(&mut self, node: usize, packing: Packing, first: usize, outputs: usize) -> Packed {
        let inputs = Jobs::inputs(self.convolution(node).expect("a convolution"));
        self.pack_part(node, packing, [0..inputs, first..first + outputs])
    }

    /// Some inputs and outputs of a node.
    fn pack_part(&mut self, node: usize, packing: Packing, part: [Range<usize>; 2]) -> Packed {
        let c = self.convolution(node).expect("a convolution");
        self.packing.add(self.level, node, c, packing, part)
    }

    /// Places all buffers, then packs the weights.
    fn finish(mut self) -> Result<Plan> {
        for (index, step) in self.steps.iter().enumerate() {
            for slot in [Some(step.input), step.residual, Some(step.output)].into_iter().flatten() {
                if let Place::Buffer(buffer) = slot.place {
                    let [first, last] = &mut self.buffers[buffer].used;
                    (*first, *last) = ((*first).min(index), (*last).max(index));
                }
            }
        }
        if let Some(buffer) = self.buffers.iter().find(|buffer| buffer.len > MOST_FLOATS) {
            let expected = format_args!("at most {MOST_FLOATS} (are padding and dilation meant?)");
            return Err(Error::invalid("compile", "floats of a map or of scratch", buffer.len, expected));
        }
        let (buffers, arena_len) = place(&self.buffers);
        if arena_len > MOST_FLOATS {
            return Err(Error::invalid(
                "compile",
                "floats of all maps",
                arena_len,
                format_args!("at most {MOST_FLOATS}"),
            ));
        }
        let linears = self.steps.iter().filter_map(|step| match &step.work {
            Work::Linear(products) => Some(products.iter().map(|product| product.packed.plain_len()).sum()),
            _ => None,
        });
        Ok(Plan {
            far: linears.max().unwrap_or(0),
            level: self.level,
            threads: self.threads,
            input: self.graph.sizes[0],
            output: self.graph.size(self.output),
            weights: self.packing.run(self.level, self.graph)?,
            steps: self.steps,
            buffers,
            arena_len,
        })
    }
}
