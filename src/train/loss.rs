//! Softmax cross-entropy: the loss and its gradient in one pass.
//!
//! Rows are computed in `f64` for either element type: next to a network they cost nothing, and the loss a user watches
//! has no rounding of its own.

use alloc::vec::Vec;

use num_traits::Float;

use crate::layers::setters;
use crate::{Element, Error, Result, Tensor};

const OPERATION: &str = "cross_entropy";

/// How far the weights of a soft target may be from a sum of 1: what `f32` mixing of many images leaves.
const SUM_TOLERANCE: f64 = 1e-4;

/// Softmax cross-entropy, the mean over the batch: `loss = -1/N * sum over n, k of q[n, k] * log_softmax(logits[n])[k]`,
/// with targets `q = (1 - s) * target + s / K` for label smoothing `s` (Szegedy et al. 2016, section 7; as PyTorch).
///
/// `N` images, `K` classes. Computed by log-sum-exp: logits of any finite size give a finite loss. NaN or infinite
/// logits give a loss that is NaN or infinite.
///
/// ```
/// use mobilenet::{Tensor, train::CrossEntropy};
/// let logits = Tensor::from_slice([1, 1, 1, 2], &[0.0_f64, 0.0])?;
/// let (loss, d_logits) = CrossEntropy::new().hard(&logits, &[0])?;
/// assert!((loss - 2_f64.ln()).abs() < 1e-15);
/// assert_eq!(d_logits.as_slice(), [-0.5, 0.5]);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct CrossEntropy {
    label_smoothing: f64,
}

impl CrossEntropy {
    /// Without label smoothing.
    pub const fn new() -> Self {
        Self { label_smoothing: 0.0 }
    }

    setters! {
        /// The part of each target that is spread evenly over all classes, 0 to 1.
        label_smoothing: f64 => label_smoothing;
    }

    /// Refuses label smoothing outside 0 to 1.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.label_smoothing) {
            return Ok(());
        }
        Err(Error::invalid(OPERATION, "label smoothing", self.label_smoothing, "0 to 1"))
    }

    /// The mean loss of logits `[N, 1, 1, K]` for one class per image, and its gradient, of the logits' shape.
    ///
    /// # Errors
    ///
    /// If there are no images or classes, not one label per image, a label that is not below `K`, or label smoothing is
    /// outside 0 to 1.
    pub fn hard<T: Element>(&self, logits: &Tensor<T>, labels: &[usize]) -> Result<(f64, Tensor<T>)> {
        self.check()?;
        let [images, classes] = size(logits)?;
        if labels.len() != images {
            return Err(Error::shape(OPERATION, "labels", &[labels.len()], format_args!("[{images}]")));
        }
        if let Some((index, label)) = labels.iter().enumerate().find(|(_, label)| **label >= classes) {
            let found = format_args!("{label} at index {index}");
            return Err(Error::invalid(OPERATION, "label", found, format_args!("below the {classes} classes")));
        }
        let spread = self.label_smoothing / classes as f64;
        Ok(mean(logits, [images, classes], |image, class| {
            if class == labels[image] { 1.0 - self.label_smoothing + spread } else { spread }
        }))
    }

    /// The mean loss of logits `[N, 1, 1, K]` for a distribution over the classes per image, of the same shape (what
    /// mixup and distillation give), and its gradient.
    ///
    /// # Errors
    ///
    /// If there are no images or classes, the shapes differ, a target is negative or not finite, the targets of an
    /// image do not sum to 1 within 1e-4, or label smoothing is outside 0 to 1.
    pub fn soft<T: Element>(&self, logits: &Tensor<T>, targets: &Tensor<T>) -> Result<(f64, Tensor<T>)> {
        self.check()?;
        let [images, classes] = size(logits)?;
        if targets.shape() != logits.shape() {
            let expected = format_args!("{:?}, the logits'", logits.shape());
            return Err(Error::shape(OPERATION, "targets", &targets.shape(), expected));
        }
        let targets = targets.as_slice();
        for (image, row) in targets.chunks_exact(classes).enumerate() {
            if let Some((class, &weight)) =
                row.iter().enumerate().find(|(_, weight)| !(**weight >= T::zero() && weight.is_finite()))
            {
                let found = format_args!("{weight} for class {class} of image {image}");
                return Err(Error::invalid(OPERATION, "target", found, "a finite number, at least 0"));
            }
            let sum: f64 = row.iter().map(|weight| Element::to_f64(*weight)).sum();
            if Float::abs(sum - 1.0) > SUM_TOLERANCE {
                let found = format_args!("{sum} for image {image}");
                return Err(Error::invalid(OPERATION, "sum of targets", found, "1 within 1e-4"));
            }
        }
        let spread = self.label_smoothing / classes as f64;
        Ok(mean(logits, [images, classes], |image, class| {
            (1.0 - self.label_smoothing) * Element::to_f64(targets[image * classes + class]) + spread
        }))
    }
}

/// `[N, K]` of logits `[N, 1, 1, K]`, both at least 1.
fn size<T: Element>(logits: &Tensor<T>) -> Result<[usize; 2]> {
    match logits.shape() {
        [images, 1, 1, classes] if images > 0 && classes > 0 => Ok([images, classes]),
        shape => Err(Error::shape(OPERATION, "logits", &shape, "[N, 1, 1, K] with at least one image and class")),
    }
}

/// Loss and gradient for targets `target(image, class)`.
///
/// With `e = exp(logit - max)`: `loss = log(sum e) * sum q - sum of q * (logit - max)`, `d = (sum q * e / sum e - q) / N`.
/// The sum of `q` is 1 but for the tolerance of soft targets.
fn mean<T: Element>(
    logits: &Tensor<T>,
    [images, classes]: [usize; 2],
    target: impl Fn(usize, usize) -> f64,
) -> (f64, Tensor<T>) {
    let mut d_logits = logits.clone();
    let mut exponentials: Vec<f64> = Vec::with_capacity(classes);
    let mut loss = 0.0;
    for (image, row) in d_logits.as_mut_slice().chunks_exact_mut(classes).enumerate() {
        let greatest = row.iter().fold(f64::NEG_INFINITY, |greatest, logit| greatest.max(Element::to_f64(*logit)));
        exponentials.clear();
        exponentials.extend(row.iter().map(|logit| Float::exp(Element::to_f64(*logit) - greatest)));
        let sum: f64 = exponentials.iter().sum();
        let (mut weights, mut products) = (0.0, 0.0);
        for (class, logit) in row.iter().enumerate() {
            let weight = target(image, class);
            weights += weight;
            // A weight of 0 takes nothing from a class, even one whose logit is minus infinity.
            if weight > 0.0 {
                products += weight * (Element::to_f64(*logit) - greatest);
            }
        }
        loss += Float::ln(sum) * weights - products;
        for (class, (d, exponential)) in row.iter_mut().zip(&exponentials).enumerate() {
            *d = T::from_f64((weights * exponential / sum - target(image, class)) / images as f64);
        }
    }
    (loss / images as f64, d_logits)
}
