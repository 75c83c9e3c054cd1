//! A training run, to go on from later: bit for bit as if it had not been interrupted.
//!
//! Options (network, optimizer, loss, schedule) are the program's; what they have led to is here. In a file it is one
//! safetensors file, whose arrays other tools can read, with the rest as JSON in its metadata.

use alloc::format;

use ndarray::{ArrayD, IxDyn};

use super::{Ema, Optimizer, OptimizerProgress, OptimizerState, Trainer};
use crate::layers::{Layer, LoadMode, StateDict};
use crate::{Element, Error, Result};

const OPERATION: &str = "resume";

/// Everything a [`Trainer`] has learned and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<T> {
    progress: Progress,
    /// `net.*`, `gradient.*`, `optimizer.*`, `ema.*`.
    tensors: StateDict<T>,
}

/// All but the arrays.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Progress {
    step: u64,
    accumulated: usize,
    seed: u64,
    learning_rate: f64,
    optimizer: OptimizerProgress,
    ema_updates: Option<u64>,
}

impl<T: Element> Checkpoint<T> {
    /// Optimizer steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.progress.step
    }

    /// The network's parameters.
    #[must_use]
    pub fn net(&self) -> StateDict<T> {
        self.part("net")
    }

    /// The arrays below a name, without it.
    fn part(&self, prefix: &str) -> StateDict<T> {
        let mut part = StateDict::new(self.tensors.source());
        for (name, array) in self.tensors.iter() {
            if let Some(name) = name.strip_prefix(prefix).and_then(|name| name.strip_prefix('.')) {
                part.insert(name, array.clone());
            }
        }
        part
    }

    /// Writes a file; it is complete, or what was there before is unchanged.
    ///
    /// # Errors
    ///
    /// If the system refuses to write.
    #[cfg(feature = "safetensors")]
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let progress = serde_json::to_string(&self.progress).map_err(|error| Error::format("checkpoint", error))?;
        self.tensors.save_with(path.as_ref(), &progress)
    }

    /// Reads a file that [`Checkpoint::save`] wrote.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not a checkpoint.
    #[cfg(feature = "safetensors")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let (tensors, progress) = StateDict::open_with(path.as_ref())?;
        let progress = progress.ok_or_else(|| Error::format("checkpoint", "the file holds weights alone"))?;
        let progress = serde_json::from_str(&progress).map_err(|error| Error::format("checkpoint", error))?;
        Ok(Self { progress, tensors })
    }
}

impl<T: Element, L: Layer<T>, O: Optimizer<T>> Trainer<T, L, O> {
    /// What the run has come to: a copy.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint<T> {
        let mut tensors = StateDict::new(None);
        self.net.visit("net", &mut |name, parameter| {
            if let Some(gradient) = parameter.gradient().filter(|_| self.accumulated > 0) {
                tensors.insert(name.replacen("net", "gradient", 1), flat(gradient));
            }
            tensors.insert(name, parameter.value().clone());
        });
        let state = self.optimizer.state();
        for (name, values) in state.slots() {
            tensors.insert(format!("optimizer.{name}"), flat(values));
        }
        for (name, values) in self.ema.iter().flat_map(Ema::averages) {
            tensors.insert(format!("ema.{name}"), flat(values));
        }
        let progress = Progress {
            step: self.step,
            accumulated: self.accumulated,
            seed: self.seed,
            learning_rate: self.learning_rate,
            optimizer: state.progress().clone(),
            ema_updates: self.ema.as_ref().map(Ema::updates),
        };
        Checkpoint { progress, tensors }
    }

    /// Goes on from a checkpoint of a run with the same options: its steps then are those of the uninterrupted run,
    /// given the same batches.
    ///
    /// # Errors
    ///
    /// If it comes from another network (all differences at once), another optimizer, or a run with another average of
    /// weights or accumulation; the trainer is as before.
    pub fn resume(&mut self, checkpoint: &Checkpoint<T>) -> Result<()> {
        let Progress { step, accumulated, seed, learning_rate, ref optimizer, ema_updates } = checkpoint.progress;
        if accumulated >= self.accumulation {
            let expected = format_args!("less than the {} of a step", self.accumulation);
            return Err(Error::invalid(OPERATION, "accumulated batches", accumulated, expected));
        }
        let has_average = |has| if has { "with an average of weights" } else { "without an average of weights" };
        if ema_updates.is_some() != self.ema.is_some() {
            let [found, expected] = [ema_updates.is_some(), self.ema.is_some()].map(has_average);
            return Err(Error::invalid(OPERATION, "checkpoint", found, expected));
        }
        let mut state = OptimizerState::new(optimizer.clone());
        for (name, array) in checkpoint.part("optimizer").iter() {
            state.insert(name, array.iter().copied().collect());
        }
        let gradients = checkpoint.part("gradient");
        let mut misfit = None;
        self.net.visit("", &mut |name, parameter| {
            if let Some(gradient) = gradients.get(&name).filter(|gradient| gradient.len() != parameter.len()) {
                misfit = Some((name, gradient.len(), parameter.len()));
            }
        });
        if let Some((name, found, expected)) = misfit {
            return Err(Error::shape(OPERATION, "gradient", &[found], format_args!("[{expected}] for {name}")));
        }
        let averaged = self.ema.as_ref().zip(ema_updates).map(|(ema, updates)| {
            let averages = checkpoint.part("ema");
            let mut ema = ema.clone();
            ema.restore(updates, averages.iter().map(|(name, array)| (name.into(), array.iter().copied().collect())));
            if updates > 0 { ema.check_fit(&self.net).map(|()| ema) } else { Ok(ema) }
        });
        // Each checks whole before it changes; should a later one refuse, the network is put back.
        let before = StateDict::of(&self.net, None);
        checkpoint.net().load_into(&mut self.net, LoadMode::Strict)?;
        let loaded = averaged.transpose().and_then(|ema| self.optimizer.load_state(state).map(|()| ema));
        match loaded {
            Ok(ema) => self.ema = ema,
            Err(error) => {
                before.load_into(&mut self.net, LoadMode::Strict)?;
                return Err(error);
            }
        }
        self.net.visit_mut("", &mut |name, parameter| {
            parameter.zero_gradient();
            if let Some(gradient) = gradients.get(&name) {
                parameter.gradient_mut().iter_mut().zip(gradient).for_each(|(to, from)| *to = *from);
            }
        });
        (self.step, self.accumulated, self.seed, self.learning_rate) = (step, accumulated, seed, learning_rate);
        Ok(())
    }
}

fn flat<T: Element>(values: &[T]) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).expect("as many as there are")
}
