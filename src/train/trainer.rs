//! A network, its optimizer and its loss, stepping together.
//!
//! A step is forward, loss, backward, and the optimizer's update. Where the loss is not a number, the step is refused
//! before it spoils the network, and the layer where it began is named.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;

use super::clip::check_norm;
use super::evaluation::rank;
use super::recalibrate::keeping_statistics;
use super::{CrossEntropy, Ema, Evaluation, Optimizer, Schedule, clip_gradients};
use crate::layers::{Gradient, Layer, Role, Signal, Tape, dotted};
use crate::ops::{self, Lazy};
use crate::{Element, Error, Result, Runtime, Tensor};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Optimizer steps so far, this one included if it made one.
    pub step: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Share of the batch whose class has the greatest logit; `None` of soft targets.
    pub accuracy: Option<f64>,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Norm of the gradients before they were clipped, if they are.
    pub gradient_norm: Option<f64>,
}

/// Loss, its gradient and the accuracy of a batch's logits.
type Answer<T> = (f64, Tensor<T>, Option<f64>);

/// Called after every step.
type Hook = Box<dyn FnMut(&StepReport) + Send>;

/// Trains any layer that ends in logits `[N, 1, 1, K]`.
///
/// ```
/// use mobilenet::layers::Linear;
/// use mobilenet::train::{CrossEntropy, Sgd, Trainer};
/// use mobilenet::Tensor;
/// let net = Linear::<f32>::builder(2, 2).build()?;
/// let mut trainer = Trainer::new(net, Sgd::new(0.5), CrossEntropy::new());
/// let batch = Tensor::from_slice([2, 1, 1, 2], &[1.0, 0.0, 0.0, 1.0])?;
/// let first = trainer.step(&batch, &[0, 1])?;
/// let second = trainer.step(&batch, &[0, 1])?;
/// assert!(second < first);
/// # Ok::<(), mobilenet::Error>(())
/// ```
pub struct Trainer<T: Element, L, O> {
    pub(super) net: L,
    pub(super) optimizer: O,
    loss: CrossEntropy,
    pub(super) learning_rate: f64,
    schedule: Schedule,
    clip: Option<f64>,
    pub(super) accumulation: usize,
    pub(super) accumulated: usize,
    pub(super) ema: Option<Ema<T>>,
    pub(super) seed: u64,
    pub(super) step: u64,
    tape: Tape<T>,
    hook: Option<Hook>,
}

impl<T: Element, L: fmt::Debug, O: fmt::Debug> fmt::Debug for Trainer<T, L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { net, optimizer, loss, schedule, step, .. } = self;
        f.debug_struct("Trainer")
            .field("net", net)
            .field("optimizer", optimizer)
            .field("loss", loss)
            .field("schedule", schedule)
            .field("step", step)
            .finish_non_exhaustive()
    }
}

impl<T: Element, L: Layer<T>, O: Optimizer<T>> Trainer<T, L, O> {
    /// Trains on the calling thread at the machine's best SIMD level, at the optimizer's own learning rate.
    #[must_use]
    pub fn new(net: L, optimizer: O, loss: CrossEntropy) -> Self {
        Self {
            learning_rate: optimizer.learning_rate(),
            net,
            optimizer,
            loss,
            schedule: Schedule::constant(),
            clip: None,
            accumulation: 1,
            accumulated: 0,
            ema: None,
            seed: 0,
            step: 0,
            tape: Tape::new(Runtime::new()),
            hook: None,
        }
    }

    /// Another SIMD level or more threads; results do not depend on the threads.
    #[must_use]
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.tape = Tape::new(runtime);
        self
    }

    /// Multiplies the optimizer's learning rate, step by step.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Scales gradients down to at most this L2 norm over all parameters.
    #[must_use]
    pub fn clip(mut self, norm: f64) -> Self {
        self.clip = Some(norm);
        self
    }

    /// Batches whose mean gradient makes one optimizer step, 1 by default.
    #[must_use]
    pub fn accumulation(mut self, batches: usize) -> Self {
        self.accumulation = batches;
        self
    }

    /// Keeps a moving average of the weights, which [`Trainer::evaluate`] uses.
    #[must_use]
    pub fn ema(mut self, ema: Ema<T>) -> Self {
        self.ema = Some(ema);
        self
    }

    /// Seed of what the layers draw (dropout), 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Calls this after every step, on one of the runtime's threads.
    #[must_use]
    pub fn on_step(mut self, hook: impl FnMut(&StepReport) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// The network.
    #[must_use]
    pub fn net(&self) -> &L {
        &self.net
    }

    /// The network, to change between steps.
    #[must_use]
    pub fn net_mut(&mut self) -> &mut L {
        &mut self.net
    }

    /// The network, trained.
    #[must_use]
    pub fn into_net(self) -> L {
        self.net
    }

    /// The optimizer.
    #[must_use]
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// Optimizer steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step on images `[N, H, W, C]` with a class for each; returns their mean loss.
    ///
    /// # Errors
    ///
    /// If the network does not take the images or does not train, a label is out of range, an option is, the loss is
    /// not finite (that names the step and the layer where it began), or gradients to be clipped are not. Weights and
    /// statistics are then as they were.
    pub fn step(&mut self, images: &Tensor<T>, labels: &[usize]) -> Result<f64> {
        self.step_with(images, |loss, logits| {
            let (loss, d_logits) = loss.hard(logits, labels)?;
            Ok((loss, d_logits, Some(accuracy(logits, labels))))
        })
    }

    /// As [`Trainer::step`], with a distribution over the classes `[N, 1, 1, K]` for each image.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn step_soft(&mut self, images: &Tensor<T>, targets: &Tensor<T>) -> Result<f64> {
        self.step_with(images, |loss, logits| {
            let (loss, d_logits) = loss.soft(logits, targets)?;
            Ok((loss, d_logits, None))
        })
    }

    fn step_with(
        &mut self,
        images: &Tensor<T>,
        answer: impl FnOnce(&CrossEntropy, &Tensor<T>) -> Result<Answer<T>> + Send,
    ) -> Result<f64> {
        self.check()?;
        // On one of the runtime's threads from the first layer to the last: the pool is entered once.
        let runtime = self.tape.runtime().clone();
        runtime.install(|| self.step_here(images, answer))
    }

    fn step_here(
        &mut self,
        images: &Tensor<T>,
        answer: impl FnOnce(&CrossEntropy, &Tensor<T>) -> Result<Answer<T>>,
    ) -> Result<f64> {
        if self.accumulated == 0 {
            let runtime = self.tape.runtime();
            self.net.visit_mut("", &mut |_, parameter| parameter.zero_gradient_with(runtime));
        }
        let batch = self.step.wrapping_mul(self.accumulation as u64).wrapping_add(self.accumulated as u64);
        self.tape.start(crate::layers::derive_seed(self.seed, batch));
        let mut input = self.tape.tensor(images.shape())?;
        ops::apply(Lazy { map: images, affine: None }, &mut input, self.tape.runtime())?;
        let is_last = self.accumulated + 1 == self.accumulation;
        let learning_rate = self.learning_rate * self.schedule.factor(self.step);
        let Self { net, optimizer, tape, loss, accumulation, accumulated, clip, .. } = self;
        let step = self.step + 1;
        let (loss, accuracy, gradient_norm) = keeping_statistics(net, |net| {
            let output = net.forward_train(Signal::new(input), tape)?;
            let needs_gradient = output.needs_gradient();
            let (loss, mut d_logits, accuracy) = answer(loss, &output.into_tensor(tape)?)?;
            if !loss.is_finite() {
                return Err(not_finite(net, step, loss, images, tape.runtime()));
            }
            if !needs_gradient {
                return Err(Error::invalid("trainer", "network", "frozen", "at least one parameter that trains"));
            }
            if *accumulation > 1 {
                let share = T::from_f64(1.0 / *accumulation as f64);
                d_logits.as_mut_slice().iter_mut().for_each(|d| *d *= share);
            }
            net.backward(Gradient::new(d_logits), tape)?;
            // Gradients that cannot be clipped or are refused are given up.
            *accumulated = if is_last { 0 } else { *accumulated + 1 };
            if !is_last {
                return Ok((loss, accuracy, None));
            }
            let norm = clip.map(|most| clip_gradients(net, most)).transpose()?;
            optimizer.set_learning_rate(learning_rate);
            optimizer.step_with(net, tape.runtime())?;
            Ok((loss, accuracy, norm))
        })?;

        if is_last {
            self.step += 1;
            if let Some(ema) = &mut self.ema {
                ema.update(&self.net)?;
            }
        }
        if let Some(hook) = &mut self.hook {
            hook(&StepReport { step: self.step, loss, accuracy, learning_rate, gradient_norm });
        }
        Ok(loss)
    }

    /// Refuses options outside their range and an average of another network's weights, as every step does first.
    ///
    /// # Errors
    ///
    /// Which option, and what was expected.
    pub fn check(&self) -> Result<()> {
        if self.accumulation == 0 {
            return Err(Error::invalid("trainer", "accumulation", 0, "at least 1 batch"));
        }
        self.clip.map_or(Ok(()), check_norm)?;
        self.ema.as_ref().map_or(Ok(()), |ema| ema.check(&self.net))?;
        self.loss.check()?;
        self.schedule.check()?;
        self.optimizer.check()
    }

    /// Loss, accuracies and confusions on batches that are not trained on, with the averaged weights if there are any.
    ///
    /// # Errors
    ///
    /// What the batches give, or if one does not fit the network.
    pub fn evaluate(
        &mut self,
        batches: impl IntoIterator<Item = Result<(Tensor<T>, alloc::vec::Vec<usize>)>>,
    ) -> Result<Evaluation> {
        let averaged = self.ema.as_ref().is_some_and(|ema| ema.updates() > 0);
        if let Some(ema) = self.ema.as_mut().filter(|_| averaged) {
            ema.swap(&mut self.net)?;
        }
        let evaluation = Evaluation::of(&self.net, &self.loss, batches, self.tape.runtime());
        if let Some(ema) = self.ema.as_mut().filter(|_| averaged) {
            ema.swap(&mut self.net)?;
        }
        evaluation
    }
}

/// Share of the images whose class has the greatest logit.
fn accuracy<T: Element>(logits: &Tensor<T>, labels: &[usize]) -> f64 {
    let rows = logits.as_slice().chunks_exact(logits.shape()[3]);
    let right = rows.zip(labels).filter(|&(logits, &label)| rank(logits, label) == Some(0));
    right.count() as f64 / labels.len() as f64
}

fn not_finite<T: Element>(net: &dyn Layer<T>, step: u64, loss: f64, images: &Tensor<T>, runtime: &Runtime) -> Error {
    let found = format!("{loss} at step {step}, first in {}", first_not_finite(net, images, runtime));
    Error::invalid("trainer", "loss", found, "a finite number (a lower learning rate, or clipped gradients)")
}

/// The first parameter or layer, in the order of the network, with a value that is not finite; running statistics tell
/// of those of the batch, which have moved them.
fn first_not_finite<T: Element>(net: &dyn Layer<T>, images: &Tensor<T>, runtime: &Runtime) -> String {
    if !is_finite(images.as_slice()) {
        return "the images".into();
    }
    finite_output(net, "", images, runtime).err().unwrap_or_else(|| "the logits".into())
}

/// A layer's inference if all of it is finite, `None` if it refuses the input; as an error, what is not finite first.
fn finite_output<T: Element>(
    layer: &dyn Layer<T>,
    name: &str,
    input: &Tensor<T>,
    runtime: &Runtime,
) -> Result<Option<Tensor<T>>, String> {
    let mut current = input.clone();
    for (own, child) in layer.children() {
        match finite_output(child, &dotted(name, &own), &current, runtime)? {
            Some(output) => current = output,
            None => break,
        }
    }
    check_parameters(layer, name)?;
    match layer.forward_with(input, runtime) {
        Ok(output) if !is_finite(output.as_slice()) => {
            Err(if name.is_empty() { "the logits".into() } else { format!("layer {name}") })
        }
        output => Ok(output.ok()),
    }
}

fn check_parameters<T: Element>(layer: &dyn Layer<T>, name: &str) -> Result<(), String> {
    let mut result = Ok(());
    layer.visit(name, &mut |name, parameter| {
        if result.is_ok() && !is_finite(parameter.as_slice()) {
            result = Err(match parameter.role() {
                Role::RunningStatistic => format!("the batch statistics of {}", parent(&name)),
                _ => format!("parameter {name}"),
            });
        }
    });
    result
}

fn is_finite<T: Element>(values: &[T]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// The name of the layer that a parameter of this name belongs to.
fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("the network", |(parent, _)| parent)
}
