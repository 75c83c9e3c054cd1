//! Packing of weights: all in one block of memory, in the order of their use, one operator after another.

use alloc::vec::Vec;
use core::ops::Range;

use super::graph::{Convolution, FilterWeights, Graph, Operator};
use super::memory::Memory;
use super::step::Packed;
use crate::kernels::{BLOCK, PackedDepthwise, PackedWeights, Pixels, SimdLevel};
use crate::{Error, Result};

/// Weights to pack.
struct Job {
    node: usize,
    packing: Packing,
    packed: Packed,
    /// The first of the inputs, and of the outputs.
    first: [usize; 2],
    len: usize,
}

/// How weights are packed.
#[derive(Clone, Copy)]
pub(super) enum Packing {
    /// In panels, for outputs in blocks of channels or channels-last.
    Panels {
        blocked: bool,
    },
    Depthwise,
    /// The bias, then the weights as they are.
    Plain,
}

/// What is to be packed.
#[derive(Default)]
pub(super) struct Jobs {
    list: Vec<Job>,
    /// Convolutions with the normalisation that is folded into each.
    norms: Vec<[usize; 2]>,
    len: usize,
}

impl Jobs {
    /// Inputs of an output of a node.
    pub(super) fn inputs(c: &Convolution<'_>) -> usize {
        c.geometry.taps() * (c.filter.channels[0] / c.filter.groups)
    }

    /// Reserves memory for some inputs and outputs of a node's weights; the bias belongs to the first input.
    pub(super) fn add(
        &mut self,
        level: SimdLevel,
        node: usize,
        c: &Convolution<'_>,
        packing: Packing,
        [from, to]: [Range<usize>; 2],
    ) -> Packed {
        let packed = Packed { start: self.len, inputs: from.len(), outputs: to.len() };
        let len = match packing {
            Packing::Panels { .. } => PackedWeights::len(level, packed.inputs, packed.outputs),
            Packing::Depthwise => PackedDepthwise::len(c.geometry.taps(), packed.outputs),
            Packing::Plain => packed.plain_len(),
        };
        self.list.push(Job { node, packing, packed, first: [from.start, to.start], len });
        self.len += len.next_multiple_of(BLOCK);
        packed
    }

    /// Folds a normalisation after a convolution into it.
    pub(super) fn fold(&mut self, node: usize, norm: usize) {
        self.norms.push([node, norm]);
    }

    /// Packs everything.
    ///
    /// # Errors
    ///
    /// If an operator's weights are not as many as it said.
    pub(super) fn run(&mut self, level: SimdLevel, graph: &Graph<'_>) -> Result<Memory> {
        let mut memory = Memory::new(self.len);
        let store = memory.as_mut_slice();
        self.list.sort_by_key(|job| job.node);
        for jobs in self.list.chunk_by(|a, b| a.node == b.node) {
            let Operator::Convolution(c) = &graph.nodes[jobs[0].node].operator else { continue };
            let mut weights = weights_of(c)?;
            let norm = self.norms.iter().find(|[node, _]| *node == jobs[0].node).map(|&[_, norm]| norm);
            if let Some(norm) = norm
                && let Operator::Convolution(norm) = &graph.nodes[norm].operator
            {
                scale_and_shift(&mut weights, &weights_of(norm)?);
            }
            for job in jobs {
                let store = &mut store[job.packed.start..][..job.len];
                job.pack(level, c, &weights, store);
                flush(store);
            }
        }
        Ok(memory)
    }
}

/// An operator's weights.
fn weights_of<'a>(c: &Convolution<'a>) -> Result<FilterWeights<'a>> {
    let weights = (c.filter.weights)();
    let [inputs, outputs] = c.filter.channels;
    let len = c.geometry.taps() * (inputs / c.filter.groups) * outputs;
    let scale = weights.scale.as_ref().map_or(outputs, |scale| scale.len());
    for (argument, found, expected) in
        [("weight", weights.weight.len(), len), ("scale", scale, outputs), ("bias", weights.bias.len(), outputs)]
    {
        if found != expected {
            return Err(Error::shape("compile", argument, &[found], format_args!("{expected} elements")));
        }
    }
    Ok(weights)
}

/// Folds a normalisation after a convolution into its weights.
fn scale_and_shift(weights: &mut FilterWeights<'_>, norm: &FilterWeights<'_>) {
    let mut factors = norm.weight.to_vec();
    let multiply = |factors: &mut [f32], by: &[f32]| factors.iter_mut().zip(by).for_each(|(to, by)| *to *= by);
    if let Some(scale) = &norm.scale {
        multiply(&mut factors, scale);
    }
    let bias = weights.bias.to_mut();
    multiply(bias, &factors);
    bias.iter_mut().zip(&*norm.bias).for_each(|(bias, shift)| *bias += shift);
    if let Some(scale) = &weights.scale {
        multiply(&mut factors, scale);
    }
    weights.scale = Some(factors.into());
}

/// Subnormal values become 0: channels that died in training leave them, and CPUs multiply them many times slower
/// (ncnn#2656).
fn flush(values: &mut [f32]) {
    for value in values {
        if value.abs() < f32::MIN_POSITIVE {
            *value = 0.0;
        }
    }
}

impl Job {
    fn pack(&self, level: SimdLevel, c: &Convolution<'_>, weights: &FilterWeights<'_>, store: &mut [f32]) {
        let Packed { inputs, outputs, .. } = self.packed;
        let all = c.filter.channels[1];
        let [input, output] = self.first;
        let FilterWeights { weight, scale, bias } = weights;
        let bias = &bias[output..][..outputs];
        let scale = scale.as_ref().map(|scale| &scale[output..][..outputs]);
        match self.packing {
            Packing::Panels { blocked } => {
                let weight = Pixels::new(&weight[input * all + output..], [1, inputs], outputs, all);
                let bias = (input == 0).then_some(bias);
                let _ = if blocked {
                    PackedWeights::pack_blocked(level, weight, bias, store)
                } else {
                    PackedWeights::pack(level, weight, bias, store)
                };
                match scale {
                    Some(scale) if blocked => PackedWeights::scale_blocked(level, inputs, scale, store),
                    Some(scale) => PackedWeights::scale(level, inputs, scale, store),
                    None => {}
                }
            }
            Packing::Depthwise => {
                debug_assert_eq!(self.first, [0, 0], "depthwise weights are packed whole");
                let _ = PackedDepthwise::pack_blocked(c.geometry.taps(), outputs, weight, Some(bias), store);
                if let Some(scale) = scale {
                    PackedDepthwise::scale_blocked(c.geometry.taps(), scale, store);
                }
            }
            Packing::Plain => {
                debug_assert_eq!(input, 0, "all inputs are packed");
                store[..outputs].copy_from_slice(bias);
                for (to, from) in store[outputs..].chunks_exact_mut(outputs).zip(weight.chunks_exact(all)) {
                    to.copy_from_slice(&from[output..][..outputs]);
                    if let Some(scale) = scale {
                        to.iter_mut().zip(scale).for_each(|(to, scale)| *to *= scale);
                    }
                }
            }
        }
    }
}
