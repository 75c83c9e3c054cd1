//! Clipping of gradients by their common norm.

use alloc::string::String;

use num_traits::Float;

use crate::layers::Layer;
use crate::{Element, Error, Result};

const OPERATION: &str = "clip_gradients";

/// Added to the norm by PyTorch's `clip_grad_norm_`, and so here.
const EPSILON: f64 = 1e-6;

/// Sums side by side: one alone would wait for each addition.
const LANES: usize = 8;

/// Scales the gradients of all trained parameters by `min(1, most / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_`;
/// `norm` is the Euclidean norm of all of them together, as they were before: returned, so infinity as `most` only
/// measures.
///
/// Computed in `f64`, in the order of [`Layer::visit`]. Frozen parameters and running statistics do not count.
///
/// # Errors
///
/// If `most` is not above 0, or a gradient is not finite: then nothing is scaled, and the error names the first
/// such parameter.
pub fn clip_gradients<T: Element>(net: &mut dyn Layer<T>, most: f64) -> Result<f64> {
    check_norm(most)?;
    let norm = gradient_norm(net)?;
    let factor = most / (norm + EPSILON);
    if factor < 1.0 {
        let factor = T::from_f64(factor);
        net.visit_mut("", &mut |_, parameter| {
            if parameter.trains() && parameter.gradient().is_some() {
                parameter.gradient_mut().iter_mut().for_each(|d| *d *= factor);
            }
        });
    }
    Ok(norm)
}

/// Refuses a norm that gradients cannot be clipped to.
pub(super) fn check_norm(most: f64) -> Result<()> {
    if most > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(OPERATION, "norm", most, "above 0"))
}

fn gradient_norm<T: Element>(net: &dyn Layer<T>) -> Result<f64> {
    let norm = scaled_norm(net, 1.0);
    if norm.is_finite() {
        return Ok(norm);
    }
    let mut guilty: Option<String> = None;
    let mut greatest = 0.0_f64;
    visit_gradients(net, &mut |name, gradient| {
        greatest = gradient.iter().fold(greatest, |greatest, d| greatest.max(Float::abs(Element::to_f64(*d))));
        if guilty.is_none() && gradient.iter().any(|d| !d.is_finite()) {
            guilty = Some(name);
        }
    });
    match guilty {
        Some(name) => {
            Err(Error::invalid(OPERATION, "gradient", format_args!("not finite in {name}"), "finite numbers"))
        }
        // Squares of finite `f64` beyond 1e154 overflow.
        None => Ok(greatest * scaled_norm(net, greatest)),
    }
}

/// The norm of the gradients divided by `scale`.
fn scaled_norm<T: Element>(net: &dyn Layer<T>, scale: f64) -> f64 {
    let mut total = 0.0;
    visit_gradients(net, &mut |_, gradient| total += sum_of_squares(gradient, scale));
    Float::sqrt(total)
}

fn sum_of_squares<T: Element>(values: &[T], scale: f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            let value = Element::to_f64(*value) / scale;
            *sum += value * value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        let value = Element::to_f64(*value) / scale;
        *sum += value * value;
    }
    sums.iter().sum()
}

fn visit_gradients<T: Element>(net: &dyn Layer<T>, visitor: &mut dyn FnMut(String, &[T])) {
    net.visit("", &mut |name, parameter| {
        if let Some(gradient) = parameter.gradient().filter(|_| parameter.trains()) {
            visitor(name, gradient);
        }
    });
}
