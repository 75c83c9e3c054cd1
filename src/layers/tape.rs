//! What a forward pass in training leaves for the backward pass.
//!
//! The caller owns it, not the layers: they stay shareable, and two passes of one network need two tapes. Layers push
//! what they need and pop it in the opposite order. Memory is kept from step to step: fresh pages cost as much as the
//! convolutions that fill them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::{Any, type_name};
use core::fmt;

use super::frozen::Frozen;
use super::{Gradient, Signal, derive_seed};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// Records of a forward pass, scratch memory, and the source of randomness.
pub struct Tape<T> {
    runtime: Runtime,
    records: Vec<Box<dyn Any + Send>>,
    spare: Vec<Vec<T>>,
    /// Tensors of each length that are out in this pass. No others are taken back: the memory kept would grow by what a
    /// caller brings in with every step.
    lent: BTreeMap<usize, usize>,
    seed: u64,
    draws: u64,
    momentum: Option<f64>,
    pub(super) frozen: Vec<Frozen>,
}

impl<T> fmt::Debug for Tape<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape")
            .field("runtime", &self.runtime)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

impl<T: Element> Default for Tape<T> {
    fn default() -> Self {
        Self::new(Runtime::new())
    }
}

impl<T: Element> Tape<T> {
    /// An empty tape for passes on this runtime.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            records: Vec::new(),
            spare: Vec::new(),
            lent: BTreeMap::new(),
            seed: 0,
            draws: 0,
            momentum: None,
            frozen: Vec::new(),
        }
    }

    /// How to run.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Starts a pass: forgets what an earlier one left, and draws from this seed.
    pub fn start(&mut self, seed: u64) {
        self.records.clear();
        self.lent.clear();
        (self.seed, self.draws) = (seed, 0);
    }

    /// From now on running statistics move by this share of each batch's, whatever their convention says.
    pub(crate) fn set_momentum(&mut self, momentum: f64) {
        self.momentum = Some(momentum);
    }

    pub(super) fn momentum(&self) -> Option<f64> {
        self.momentum
    }

    /// A seed for one layer's randomness in this pass.
    pub fn draw_seed(&mut self) -> u64 {
        self.draws += 1;
        derive_seed(self.seed, self.draws)
    }

    /// Keeps something for the backward pass.
    pub fn push(&mut self, record: impl Any + Send) {
        self.records.push(Box::new(record));
    }

    /// Takes back what was pushed last.
    ///
    /// # Errors
    ///
    /// If nothing is left or it is of another type: the passes of a layer do not mirror each other, or a backward pass
    /// has no forward pass.
    pub fn pop<X: Any>(&mut self) -> Result<X> {
        let record = self.records.pop().ok_or_else(|| {
            Error::invalid("backward", "tape", "empty", format_args!("{} of a forward pass", type_name::<X>()))
        })?;
        record
            .downcast()
            .map(|record| *record)
            .map_err(|_| Error::invalid("backward", "record", "of another type", format_args!("{}", type_name::<X>())))
    }

    /// A tensor with any values, in memory of the tape's if it has some of the size.
    ///
    /// # Errors
    ///
    /// If the shape has more elements than can be counted.
    pub fn tensor(&mut self, shape: Shape) -> Result<Tensor<T>> {
        let len = Tensor::<T>::memory_len("tape", shape)?;
        let fitting = (0..self.spare.len()).filter(|&at| fits(&self.spare[at], len));
        let best = fitting.min_by_key(|&at| self.spare[at].len());
        let memory = best.map_or_else(|| vec![T::zero(); len], |at| self.spare.swap_remove(at));
        let tensor = Tensor::in_memory(shape, memory)?;
        *self.lent.entry(tensor.as_slice().len()).or_default() += 1;
        Ok(tensor)
    }

    /// Gives back memory of [`Tape::tensor`].
    pub fn recycle_tensor(&mut self, tensor: Tensor<T>) {
        let (elements, len) = (tensor.as_slice().len(), Tensor::<T>::memory_len("tape", tensor.shape()));
        let Some(lent) = self.lent.get_mut(&elements).filter(|lent| **lent > 0) else { return };
        let memory = tensor.into_memory();
        // A caller's own may be too short, or much too long.
        if len.is_ok_and(|len| fits(&memory, len)) {
            *lent -= 1;
            self.spare.push(memory);
        }
    }

    pub(super) fn recycle(&mut self, signal: Signal<T>) {
        self.recycle_shared(signal.map);
    }

    pub(super) fn recycle_shared(&mut self, map: Arc<Tensor<T>>) {
        if let Ok(tensor) = Arc::try_unwrap(map) {
            self.recycle_tensor(tensor);
        }
    }

    pub(super) fn recycle_gradient(&mut self, gradient: Gradient<T>) {
        self.recycle_tensor(gradient.map);
        if let Some(through) = gradient.through {
            self.recycle_shared(through.input);
        }
    }
}

/// Whether memory is enough for so many elements, and about half of it at most would lie idle.
fn fits<T>(memory: &[T], len: usize) -> bool {
    memory.len() >= len && memory.len() / 2 <= len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_tape_comes_back_and_no_other() {
        let mut tape = Tape::<f32>::default();
        for step in 0..3 {
            tape.start(step);
            // A caller's input, two of a map's size, without room and with far too much, a map, and an output that the
            // caller keeps.
            let input = Tensor::zeros([1, 2, 2, 3]).unwrap();
            let short = Tensor::from_slice([1, 2, 2, 5], &[0.0; 20]).unwrap();
            let long = Tensor::in_memory([1, 2, 2, 5], vec![0.0; 1000]).unwrap();
            let (map, _output) = (tape.tensor([1, 2, 2, 5]).unwrap(), tape.tensor([1, 1, 1, 7]).unwrap());
            for tensor in [short, long, map, input] {
                tape.recycle_tensor(tensor);
            }
            let lens: Vec<_> = tape.spare.iter().map(Vec::len).collect();
            assert_eq!(lens, [Tensor::<f32>::memory_len("tape", [1, 2, 2, 5]).unwrap()]);
        }
    }
}
