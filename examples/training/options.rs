//! The options of a run, whatever it trains.

use std::path::PathBuf;
use std::thread::available_parallelism;

use crate::common::Result;

/// The end of the help text; defaults are the example's.
pub(crate) const OPTIONS_HELP: &str = "\
  --epochs N           passes over the training images
  --batch N            images of a step
  --lr X               learning rate at its highest: it warms up, then falls along a cosine
  --seed N             seed of everything that is drawn (default 7)
  --threads N          (default: all, at most 8)
  --steps N            stop after step N of the run, as Ctrl-C does
  --out FOLDER         for weights, checkpoint and learning curve; those of a run before get .old in their names
  --resume             go on from the checkpoint in that folder, if there is one
  --help               this text";

/// More share too little work of such small networks.
const MOST_THREADS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) epochs: u64,
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    /// Optimizer steps after which to stop.
    pub(crate) steps: u64,
    pub(crate) out: PathBuf,
    pub(crate) resume: bool,
}

impl Options {
    pub(crate) fn new(epochs: u64, batch: usize, learning_rate: f64, out: &str) -> Self {
        let threads = available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
        Self { epochs, batch, learning_rate, seed: 7, threads, steps: u64::MAX, out: out.into(), resume: false }
    }

    /// Takes the option of this name, which the example itself does not know.
    pub(crate) fn set(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<()> {
        use lexopt::ValueExt;
        match name {
            "epochs" => self.epochs = parser.value()?.parse()?,
            "batch" => self.batch = parser.value()?.parse()?,
            "lr" => self.learning_rate = parser.value()?.parse()?,
            "seed" => self.seed = parser.value()?.parse()?,
            "threads" => self.threads = parser.value()?.parse()?,
            "steps" => self.steps = parser.value()?.parse()?,
            "out" => self.out = parser.value()?.into(),
            "resume" => self.resume = true,
            _ => return Err(lexopt::Arg::Long(name).unexpected().into()),
        }
        Ok(())
    }
}
