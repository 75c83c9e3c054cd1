//! A training run: steps, validations, and a checkpoint to go on from.
//!
//! What a batch holds follows from the seed, the epoch, and its place there. So a checkpoint and the learning curve,
//! which says how many steps the epoch has had, are enough to make the rest of the run bit for bit.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use mobilenet::data::{Augmentation, ImageFolder, LastBatch, Loader};
use mobilenet::models::Network;
use mobilenet::preprocess::Preprocess;
use mobilenet::train::{AdamW, Checkpoint, CrossEntropy, Evaluation, Schedule, StepReport, Trainer};
use mobilenet::{Layer, Runtime};

use super::curve::{Curve, Validation, replace};
use super::{Interrupt, Options};
use crate::common::Result;

/// What is learned from what.
pub(crate) struct Task {
    pub(crate) net: Network<f32>,
    pub(crate) training: ImageFolder,
    pub(crate) validation: ImageFolder,
    pub(crate) preprocess: Preprocess,
    pub(crate) augmentation: Augmentation,
}

pub(crate) struct Run {
    folder: PathBuf,
    epochs: u64,
    /// Steps after which to stop.
    limit: u64,
    batch: usize,
    trainer: Trainer<f32, Network<f32>, AdamW<f32>>,
    /// One after each of the trainer's steps.
    reports: Receiver<StepReport>,
    training: Loader,
    validation: Loader,
    curve: Curve,
}

impl Run {
    /// Prepares the run, or what is left of it, in this folder.
    pub(crate) fn new(task: Task, options: &Options, folder: &Path) -> Result<Self> {
        let description = describe(&task, options);
        writeln!(stdout(), "{description}")?;
        let Task { net, training, validation, preprocess, augmentation } = task;
        let classes = training.classes().join("\n") + "\n";
        let loader = |images| Loader::builder(images, preprocess.clone()).batch_size(options.batch);
        let training = loader(training).training(augmentation, options.seed).last_batch(LastBatch::Drop).build()?;
        let validation = loader(validation).build()?;
        let steps = options.epochs.saturating_mul(training.batches() as u64);
        let (sender, reports) = channel();
        let mut trainer =
            Trainer::new(net, AdamW::new(options.learning_rate), CrossEntropy::new().label_smoothing(0.1))
                .runtime(Runtime::new().threads(options.threads)?)
                .schedule(Schedule::cosine(steps).warm_up(steps / 20))
                .seed(options.seed)
                .on_step(move |report| {
                    // Fails once the run, which holds the receiver, is over.
                    let _ = sender.send(*report);
                });

        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (checkpoint, recipe) = (checkpoint_of(folder), folder.join("run.txt"));
        trainer.check()?;
        let curve = if options.resume && checkpoint.exists() {
            let before = fs::read_to_string(&recipe).map_err(|error| format!("{}: {error}", recipe.display()))?;
            if before != description {
                return Err(format!("--resume goes on with a run of other options:\n{before}").into());
            }
            let checkpoint = Checkpoint::open(checkpoint)?;
            trainer.resume(&checkpoint)?;
            writeln!(stdout(), "goes on after step {}", checkpoint.steps())?;
            Curve::read(folder, checkpoint.steps())?
        } else {
            // A run before this one: its checkpoint is kept once more, its weights belong to other classes.
            rename_if_there(&checkpoint, &folder.join("checkpoint.old.safetensors"))?;
            rename_if_there(&folder.join("weights.safetensors"), &folder.join("weights.old.safetensors"))?;
            replace(&recipe, &description)?;
            Curve::new(folder)
        };
        replace(&folder.join("classes.txt"), &classes)?;
        let (folder, epochs, limit, batch) = (folder.into(), options.epochs, options.steps, options.batch);
        Ok(Self { folder, epochs, limit, batch, trainer, reports, training, validation, curve })
    }

    /// Trains to the end and saves the weights; `None` if the user stops it before, with a checkpoint saved.
    pub(crate) fn finish(mut self, interrupt: &Interrupt) -> Result<Option<Evaluation>> {
        // From now on the folder holds this run, not one before it.
        self.save()?;
        let bar = self.progress_bar()?;
        let mut evaluation = None;
        let (first, mut done) = self.curve.place();
        for epoch in first..self.epochs {
            let mut running = Running::default();
            for (place, batch) in self.training.epoch(epoch).enumerate() {
                let (images, labels) = batch?;
                if place < done {
                    continue;
                }
                if interrupt.is_asked() || self.trainer.steps() >= self.limit {
                    bar.abandon();
                    self.save()?;
                    self.report_skipped();
                    writeln!(stdout(), "stopped after step {}; --resume goes on from here", self.trainer.steps())?;
                    return Ok(None);
                }
                let loss = self.trainer.step(&images, &labels)?;
                self.curve.push(epoch, loss);
                self.reports.try_iter().for_each(|report| running.add(&report));
                bar.inc(1);
                bar.set_message(message(&running, self.curve.validation()));
            }
            done = 0;
            let answers = self.trainer.evaluate(self.validation.epoch(0))?;
            self.curve.validate(Validation::from(&answers));
            self.save()?;
            bar.suspend(|| writeln!(stdout(), "epoch {:3}: {}", epoch + 1, summary(&answers)))?;
            evaluation = Some(answers);
        }
        bar.finish_and_clear();
        self.trainer.net().state_dict().save(self.folder.join("weights.safetensors"))?;
        self.report_skipped();
        match evaluation {
            Some(evaluation) => Ok(Some(evaluation)),
            // The run was over when it was resumed.
            None => Ok(Some(self.trainer.evaluate(self.validation.epoch(0))?)),
        }
    }

    fn report_skipped(&self) {
        for skipped in [&self.training, &self.validation].into_iter().flat_map(Loader::unreadable) {
            eprintln!("skipped: {skipped}");
        }
    }

    /// The curve first: it may be ahead of the checkpoint, never behind.
    fn save(&self) -> Result<()> {
        self.curve.save()?;
        Ok(self.trainer.checkpoint().save(checkpoint_of(&self.folder))?)
    }

    /// Hidden where standard error is no terminal.
    fn progress_bar(&self) -> Result<ProgressBar> {
        let images = self.batch as f64;
        let speed = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            // What cannot be written to a terminal, is not.
            let _ = write!(out, "{:.0} images/s", images * state.per_sec());
        };
        let style = ProgressStyle::with_template("{bar:30} step {pos} of {len}{msg}, {speed}, {eta} left")?;
        let bar = ProgressBar::new(self.epochs.saturating_mul(self.training.batches() as u64));
        bar.set_style(style.with_key("speed", speed));
        bar.set_position(self.trainer.steps());
        bar.reset_eta();
        Ok(bar)
    }
}

/// What decides the numbers, in a few lines: a resumed run has to have the same.
fn describe(task: &Task, options: &Options) -> String {
    let (mut all, mut trained) = (0, 0);
    task.net.visit("", &mut |_, parameter| {
        all += parameter.len();
        trained += if parameter.trains() { parameter.len() } else { 0 };
    });
    let [_, size, ..] = task.preprocess.output_shape();
    let Options { epochs, batch, learning_rate, seed, .. } = options;
    format!(
        "{}: {trained} of {all} parameters train\n\
         {} images in {} classes at {size} x {size}, {} more to validate\n\
         {epochs} epochs in batches of {batch}, learning rate {learning_rate}, seed {seed}\n\
         classes: {}",
        task.net.kind(),
        task.training.len(),
        task.training.classes().len(),
        task.validation.len(),
        task.training.classes().join(", "),
    )
}

fn summary(evaluation: &Evaluation) -> String {
    format!("validation loss {:.4}, accuracy {:.2} %", evaluation.loss(), 100.0 * evaluation.top(1))
}

/// Sums over the steps of an epoch since it was begun or resumed.
#[derive(Default)]
struct Running {
    steps: f64,
    loss: f64,
    accuracy: f64,
}

impl Running {
    fn add(&mut self, report: &StepReport) {
        self.steps += 1.0;
        self.loss += report.loss;
        self.accuracy += report.accuracy.unwrap_or_default();
    }
}

/// What the bar says after a step.
fn message(Running { steps, loss, accuracy }: &Running, validation: Option<Validation>) -> String {
    let validation = validation.map(|validation| format!(", validation {:.1} %", 100.0 * validation.accuracy));
    format!(", loss {:.3}, accuracy {:.1} %{}", loss / steps, 100.0 * accuracy / steps, validation.unwrap_or_default())
}

/// What is not there needs no other name.
fn rename_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("{}: {error}", from.display()).into()),
        _ => Ok(()),
    }
}

fn checkpoint_of(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}
