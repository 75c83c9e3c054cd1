//! Training: losses, optimizers, learning-rate schedules, averages of weights.
//!
//! Everything works on any [`Layer`](crate::Layer) through its named parameters, for `f32` and `f64`. Configurations
//! and states are serde values (feature `serde`); together they resume a run bit for bit.
//!
//! [`Trainer`] puts them together. A step by hand:
//!
//! ```
//! use mobilenet::layers::{Gradient, Layer, Linear, Signal, Tape};
//! use mobilenet::train::{CrossEntropy, Optimizer, Schedule, Sgd, clip_gradients};
//! use mobilenet::{Runtime, Tensor};
//!
//! let mut net = Linear::<f64>::builder(2, 3).build()?;
//! let schedule = Schedule::cosine(100).warm_up(10);
//! let mut optimizer = Sgd::new(0.1).momentum(0.9).nesterov();
//! let (base, mut tape) = (optimizer.learning_rate(), Tape::new(Runtime::new()));
//!
//! for step in 0..2 {
//!     let images = Tensor::from_slice([1, 1, 1, 2], &[0.5, -1.0])?;
//!     net.zero_gradients();
//!     tape.start(step);
//!     let logits = net.forward_train(Signal::new(images), &mut tape)?.into_tensor(&mut tape)?;
//!     let (loss, d_logits) = CrossEntropy::new().label_smoothing(0.1).hard(&logits, &[2])?;
//!     net.backward(Gradient::new(d_logits), &mut tape)?;
//!     clip_gradients(&mut net, 1.0)?;
//!     optimizer.set_learning_rate(base * schedule.factor(step));
//!     optimizer.step(&mut net)?;
//!     assert!(loss > 0.0);
//! }
//! # Ok::<(), mobilenet::Error>(())
//! ```

mod checkpoint;
mod clip;
mod ema;
mod evaluation;
mod loss;
mod optimizer;
mod presets;
mod recalibrate;
mod schedule;
mod trainer;

pub use checkpoint::Checkpoint;
pub use clip::clip_gradients;
pub use ema::Ema;
pub use evaluation::{EarlyStop, Evaluation};
pub use loss::CrossEntropy;
pub use optimizer::{Adam, AdamW, GroupOptions, Optimizer, OptimizerProgress, OptimizerState, RmsProp, Sgd};
pub use presets::Recipe;
pub use recalibrate::recalibrate;
pub use schedule::Schedule;
pub use trainer::{StepReport, Trainer};

use crate::{Error, Result};

/// Refuses what is not a finite number of at least 0.
fn check_non_negative(operation: &'static str, argument: &'static str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(operation, argument, value, "a finite number, at least 0"))
}

/// Refuses what is not in `[0, 1)`: weights of the past in a running average.
fn check_fraction(operation: &'static str, argument: &'static str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(operation, argument, value, "at least 0 and below 1"))
}
