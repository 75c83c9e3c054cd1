//! Learning rate over time, as a factor of its base.
//!
//! A pure function of the step's number: a resumed run needs to know nothing but that number.

use num_traits::Float;

use crate::{Error, Result};

const OPERATION: &str = "schedule";

/// What the base learning rate is multiplied by at each step.
///
/// Warm-up comes first; the course after it counts from its end, except that a cosine reaches 0 at step `total` of the
/// run whatever the warm-up. Steps are optimizer steps: multiply epochs by the steps of one.
///
/// ```
/// use mobilenet::train::Schedule;
/// let schedule = Schedule::step(100, 0.98).warm_up(4);
/// assert_eq!(schedule.factor(0), 0.25);
/// assert_eq!(schedule.factor(103), 1.0);
/// assert_eq!(schedule.factor(104), 0.98);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct Schedule {
    course: Course,
    warm_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Course {
    Constant,
    Step { every: u64, factor: f64 },
    Exponential { every: u64, factor: f64 },
    Cosine { total: u64 },
}

impl Schedule {
    /// Always 1.
    pub const fn constant() -> Self {
        Self { course: Course::Constant, warm_up: 0 }
    }

    /// `factor ^ floor(step / every)`: PyTorch's `StepLR`, TensorFlow's `exponential_decay` with `staircase`.
    pub const fn step(every: u64, factor: f64) -> Self {
        Self { course: Course::Step { every, factor }, warm_up: 0 }
    }

    /// `factor ^ (step / every)`: as [`Schedule::step`], but smooth; `every` 1 is PyTorch's `ExponentialLR`.
    pub const fn exponential(every: u64, factor: f64) -> Self {
        Self { course: Course::Exponential { every, factor }, warm_up: 0 }
    }

    /// `(1 + cos(pi * step / total)) / 2`, and 0 from `total` on: half a cosine without restarts (Loshchilov & Hutter
    /// 2017), PyTorch's `CosineAnnealingLR`. `total` counts the warm-up, so it is the run's length.
    pub const fn cosine(total: u64) -> Self {
        Self { course: Course::Cosine { total }, warm_up: 0 }
    }

    /// Begins with this many steps of linear growth, `(step + 1) / steps`: none is at 0, the last is at 1.
    pub const fn warm_up(mut self, steps: u64) -> Self {
        self.warm_up = steps;
        self
    }

    /// The factor at a step, counted from 0.
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return (step + 1) as f64 / self.warm_up as f64;
        }
        let passed = step - self.warm_up;
        match self.course {
            Course::Constant => 1.0,
            Course::Step { every, factor } => Float::powf(factor, (passed / every.max(1)) as f64),
            Course::Exponential { every, factor } => Float::powf(factor, passed as f64 / every.max(1) as f64),
            Course::Cosine { total } if step < total => {
                let part = passed as f64 / (total - self.warm_up) as f64;
                0.5 * (1.0 + Float::cos(core::f64::consts::PI * part))
            }
            Course::Cosine { .. } => 0.0,
        }
    }

    /// Refuses a schedule that means nothing. [`Schedule::factor`] takes an `every` of 0 for 1.
    ///
    /// # Errors
    ///
    /// If `every` is 0, a factor is not a positive finite number, or a cosine is no longer than its warm-up.
    pub fn check(&self) -> Result<()> {
        match self.course {
            Course::Step { every: 0, .. } | Course::Exponential { every: 0, .. } => {
                Err(Error::invalid(OPERATION, "steps per factor", 0, "at least 1"))
            }
            Course::Step { factor, .. } | Course::Exponential { factor, .. } => {
                if factor > 0.0 && factor.is_finite() {
                    return Ok(());
                }
                Err(Error::invalid(OPERATION, "factor", factor, "a positive finite number"))
            }
            Course::Cosine { total } if total <= self.warm_up => {
                let expected = format_args!("more than the warm-up of {}", self.warm_up);
                Err(Error::invalid(OPERATION, "total steps", total, expected))
            }
            Course::Constant | Course::Cosine { .. } => Ok(()),
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant()
    }
}
