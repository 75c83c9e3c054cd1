//! For users' own tests of layer math: a comparison with a readable report, and the reference kernels.
//!
//! ```
//! use mobilenet::check::{Tolerance, assert_close};
//! use mobilenet::{Layer, Tensor, layers::Relu6};
//!
//! let output = Relu6.forward(&Tensor::from_shape_vec([1, 1, 1, 3], vec![-1.0_f32, 2.5, 9.0])?)?;
//! assert_close(output.as_slice(), &[0.0, 2.5, 6.0], Tolerance::absolute(0.0));
//! # Ok::<(), mobilenet::Error>(())
//! ```

use alloc::string::String;
use core::fmt::Write;

use crate::Element;

mod gradient;

pub use gradient::{GradientError, check_gradients};

pub use crate::kernels::reference;

/// How far two values may lie apart: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Allowed whatever the size of the value.
    pub absolute: f64,
    /// Allowed per unit of the expected value's magnitude.
    pub relative: f64,
}

impl Tolerance {
    /// The same for values of any size.
    #[must_use]
    pub const fn absolute(absolute: f64) -> Self {
        Self { absolute, relative: 0.0 }
    }

    /// In proportion to the expected value.
    #[must_use]
    pub const fn relative(relative: f64) -> Self {
        Self { absolute: 0.0, relative }
    }
}

/// Compares two slices element by element; `Err` is the report [`assert_close`] panics with: how many elements differ
/// by more than the tolerance, and the worst of them. A NaN is close to a NaN alone, an infinity to itself.
///
/// # Errors
///
/// If the lengths differ or an element is not close.
pub fn compare<T: Element>(actual: &[T], expected: &[T], tolerance: Tolerance) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(alloc::format!("{} elements, expected {}", actual.len(), expected.len()));
    }
    let (mut count, mut worst) = (0_usize, (0, f64::NEG_INFINITY));
    for (at, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let (actual, expected) = (actual.to_f64(), expected.to_f64());
        let difference = (actual - expected).abs();
        let same = actual.to_bits() == expected.to_bits() || (actual.is_nan() && expected.is_nan());
        let close = difference <= tolerance.absolute + tolerance.relative * expected.abs();
        if !same && !close {
            count += 1;
            // A NaN or an infinity against a number is worse than any difference.
            let excess = if difference.is_finite() { difference } else { f64::INFINITY };
            if excess > worst.1 {
                worst = (at, excess);
            }
        }
    }
    if count == 0 {
        return Ok(());
    }
    let (at, difference) = worst;
    let mut report = alloc::format!("{count} of {} elements are not close; worst at {at}: ", actual.len());
    let _ = write!(report, "{}, expected {} (difference {difference:e}, ", actual[at], expected[at]);
    let _ = write!(report, "tolerance {:e} + {:e} * |expected|)", tolerance.absolute, tolerance.relative);
    Err(report)
}

/// Panics with a report unless the slices are close; see [`compare`].
///
/// # Panics
///
/// If the lengths differ or an element is not close.
#[track_caller]
pub fn assert_close<T: Element>(actual: &[T], expected: &[T], tolerance: Tolerance) {
    if let Err(report) = compare(actual, expected, tolerance) {
        panic!("{report}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_the_worst_element_and_the_count() {
        let report = compare(&[1.0, 2.0, 3.5], &[1.0, 2.25, 3.0], Tolerance::absolute(0.1)).unwrap_err();
        assert!(report.starts_with("2 of 3 elements are not close; worst at 2: 3.5, expected 3 "), "{report}");
    }

    #[test]
    fn nan_is_close_to_nan_alone() {
        assert!(compare(&[f64::NAN], &[f64::NAN], Tolerance::absolute(0.0)).is_ok());
        assert!(compare(&[f64::NAN], &[1.0], Tolerance::relative(9.0)).is_err());
        assert!(compare(&[1.0], &[f64::NAN], Tolerance::relative(9.0)).is_err());
        assert!(compare(&[f32::INFINITY], &[f32::INFINITY], Tolerance::absolute(0.0)).is_ok());
    }

    #[test]
    fn lengths_must_agree() {
        assert!(compare(&[1.0_f32], &[1.0, 2.0], Tolerance::absolute(9.0)).is_err());
    }
}
