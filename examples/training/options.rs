//! The options of a run, whatever it trains.

use std::path::PathBuf;
use std::thread::available_parallelism;

use mobilenet::data::ImageFolder;

use super::shapes::shapes;
use crate::common::{Result, read_options};

/// The end of the help text; defaults are the example's.
const HELP: &str = "\
  --data FOLDER        one's own images: a sub-folder of JPEG or PNG files for each class
  --epochs N           passes over the training images
  --batch N            images of a step
  --lr X               learning rate at its highest: it warms up, then falls along a cosine
  --seed N             seed of everything that is drawn (default 7)
  --threads N          (default: all, at most 8)
  --steps N            stop after step N of the run, as Ctrl-C does
  --out FOLDER         for weights, checkpoint and learning curve; those of a run before get .old in their names
  --resume             go on from the checkpoint in that folder, if there is one
  --help               this text";

/// Part of the images that is kept from training.
pub(crate) const VALIDATION: f64 = 0.2;

/// More share too little work of such small networks.
const MOST_THREADS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// One's own images.
    data: Option<PathBuf>,
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
        Self {
            data: None,
            epochs,
            batch,
            learning_rate,
            seed: 7,
            threads,
            steps: u64::MAX,
            out: out.into(),
            resume: false,
        }
    }

    /// Reads the command line. `set` takes the value of an option of the example's own, if it knows it. Returns nothing
    /// if help was asked for, which is then printed.
    pub(crate) fn read(
        mut self,
        help: &str,
        mut set: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool>,
    ) -> Result<Option<Self>> {
        let goes_on =
            read_options(&format!("{help}\n{HELP}"), |name, parser| Ok(set(name, parser)? || self.set(name, parser)?))?;
        Ok(goes_on.then_some(self))
    }

    /// The user's images, or generated ones of `side` pixels.
    pub(crate) fn images(&self, per_class: usize, side: u32) -> Result<ImageFolder> {
        match &self.data {
            Some(folder) => Ok(ImageFolder::open(folder)?),
            None => shapes(per_class, side, self.seed),
        }
    }

    fn set(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool> {
        use lexopt::ValueExt;
        match name {
            "data" => self.data = Some(parser.value()?.into()),
            "epochs" => self.epochs = parser.value()?.parse()?,
            "batch" => self.batch = parser.value()?.parse()?,
            "lr" => self.learning_rate = parser.value()?.parse()?,
            "seed" => self.seed = parser.value()?.parse()?,
            "threads" => self.threads = parser.value()?.parse()?,
            "steps" => self.steps = parser.value()?.parse()?,
            "out" => self.out = parser.value()?.into(),
            "resume" => self.resume = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
