//! How good a network is, and when to stop.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::CrossEntropy;
use crate::layers::Layer;
use crate::{Element, Error, Result, Runtime, Tensor};

/// What a network answered on labelled images.
///
/// The answer is the class of the greatest logit, the first of equal ones. An image with a logit that is NaN has no
/// answer: it counts among the images, but among the right ones of no [`top`](Self::top) and in no column of the
/// confusion matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    images: usize,
    loss: f64,
    /// How many images have their class at each rank of the answer.
    ranks: Vec<usize>,
    classes: usize,
    confusion: Vec<usize>,
}

impl Evaluation {
    /// Runs a network's inference over batches of images and labels.
    ///
    /// # Errors
    ///
    /// What the batches give, or if one does not fit the network or the loss.
    pub fn of<T: Element>(
        net: &dyn Layer<T>,
        loss: &CrossEntropy,
        batches: impl IntoIterator<Item = Result<(Tensor<T>, Vec<usize>)>>,
        runtime: &Runtime,
    ) -> Result<Self> {
        let mut evaluation = Self::default();
        for batch in batches {
            let (images, labels) = batch?;
            let logits = net.forward_with(&images, runtime)?;
            evaluation.add(loss, &logits, &labels)?;
        }
        Ok(evaluation)
    }

    /// Takes in logits `[N, 1, 1, K]` of images of these classes.
    ///
    /// # Errors
    ///
    /// If a label is out of range, there is not one per image, or the number of classes changes.
    pub fn add<T: Element>(&mut self, loss: &CrossEntropy, logits: &Tensor<T>, labels: &[usize]) -> Result<()> {
        let (mean, _) = loss.hard(logits, labels)?;
        let classes = logits.shape()[3];
        if self.images == 0 {
            (self.ranks, self.confusion, self.classes) = (vec![0; classes], vec![0; classes * classes], classes);
        } else if self.classes != classes {
            return Err(Error::invalid("evaluation", "classes", classes, self.classes));
        }
        self.loss += mean * labels.len() as f64;
        self.images += labels.len();
        for (logits, &label) in logits.as_slice().chunks_exact(classes).zip(labels) {
            let Some(rank) = rank(logits, label) else { continue };
            self.ranks[rank] += 1;
            let best = (0..classes).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
            self.confusion[label * classes + best] += 1;
        }
        Ok(())
    }

    /// Images that were taken in.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// Mean loss; NaN of no images, or if a logit was NaN.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Share of images whose class is among the `k` likeliest; NaN of no images.
    #[must_use]
    pub fn top(&self, k: usize) -> f64 {
        self.ranks.iter().take(k).sum::<usize>() as f64 / self.images as f64
    }

    /// Images of class `label` that were taken for class `answer`; 0 for classes that are not there.
    #[must_use]
    pub fn confused(&self, label: usize, answer: usize) -> usize {
        if label >= self.classes || answer >= self.classes {
            return 0;
        }
        self.confusion[label * self.classes + answer]
    }
}

/// How many classes the logits put before this one; `None` if one is NaN.
pub(super) fn rank<T: Element>(logits: &[T], label: usize) -> Option<usize> {
    let own = logits[label];
    let ahead = |&(class, &logit): &(usize, &T)| logit > own || (logit == own && class < label);
    let is_ordered = logits.iter().all(|logit| !logit.is_nan());
    is_ordered.then(|| logits.iter().enumerate().filter(ahead).count())
}

impl fmt::Display for Evaluation {
    /// Loss and accuracy, then the confusion matrix: a row per class, a column per answer, without the images that have
    /// none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images, loss {:.4}, top-1 {:.2} %", self.images, self.loss(), 100.0 * self.top(1))?;
        for row in self.confusion.chunks_exact(self.classes.max(1)) {
            writeln!(f)?;
            row.iter().try_for_each(|count| write!(f, "{count:6}"))?;
        }
        Ok(())
    }
}

/// Says when a value that should fall has not fallen for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EarlyStop {
    patience: u64,
    /// `None` before the first: JSON has no infinity.
    best: Option<f64>,
    since: u64,
}

impl EarlyStop {
    /// Stops after this many values in a row that are no better than the best.
    #[must_use]
    pub const fn new(patience: u64) -> Self {
        Self { patience, best: None, since: 0 }
    }

    /// Takes in the next value; whether to stop. A NaN is no improvement.
    pub fn observe(&mut self, value: f64) -> bool {
        if value < self.best() {
            (self.best, self.since) = (Some(value), 0);
        } else {
            self.since += 1;
        }
        self.since >= self.patience.max(1)
    }

    /// The best value so far, infinite before the first.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.best.unwrap_or(f64::INFINITY)
    }
}
