//! Gradients against finite differences.
//!
//! The loss is a fixed random weighting of the layer's outputs. Each derivative is compared with the central difference
//! `(loss(x + h) - loss(x - h)) / 2h`, whose error in `f64` is about `h^2`.

use alloc::string::String;
use alloc::vec::Vec;

use rand_distr::{Distribution, StandardUniform};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

use crate::layers::{Gradient, Layer, Signal, Tape};
use crate::{Error, Result, Runtime, Tensor};

/// Step of the differences: its square and the rounding of the loss over it are both below 1e-9 for values around 1.
const STEP: f64 = 3e-6;

/// Derivatives that are compared of each array, at most.
const MOST_COMPARED: usize = 256;

/// From one of them to the next, around a larger array: a prime, so that no number of channels divides it.
const PRIME: usize = 1_000_003;

/// How far the gradient by one array is from the finite differences.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientError {
    /// The parameter's dotted name, or `input`.
    pub name: String,
    /// The greatest difference over the greatest derivative of the array; infinite if one of the two is not finite.
    pub relative: f64,
    /// The element that differs most: its index, its gradient, its finite difference.
    pub worst: (usize, f64, f64),
}

/// Compares a layer's gradients by its input and by every parameter that trains with finite differences: all elements
/// of an array, or 256 of a larger one, which meet every one of up to 256 channels.
///
/// The layer runs in its training form, on clones, so it is left as it was. A clamp has no derivative at its borders:
/// an input that puts a value within 3e-6 of one gives a false alarm.
///
/// ```
/// use mobilenet::check::check_gradients;
/// use mobilenet::layers::Linear;
/// use mobilenet::Tensor;
/// let layer = Linear::builder(3, 2).build()?;
/// let input = Tensor::from_slice([2, 1, 1, 3], &[0.3, -1.0, 2.0, 0.5, 0.7, -0.2])?;
/// for error in check_gradients(&layer, &input)? {
///     assert!(error.relative < 1e-6, "{error:?}");
/// }
/// # Ok::<(), mobilenet::Error>(())
/// ```
///
/// # Errors
///
/// If the layer does not take the input or does not train.
pub fn check_gradients(layer: &dyn Layer<f64>, input: &Tensor<f64>) -> Result<Vec<GradientError>> {
    let mut trained = layer.clone_boxed();
    trained.visit_mut("", &mut |_, parameter| parameter.zero_gradient());
    let mut tape = Tape::new(Runtime::new());
    tape.start(0);
    let output =
        trained.forward_train(Signal::new(input.clone()).with_gradient(), &mut tape)?.into_tensor(&mut tape)?;
    let weights = random(&output)?;
    let d_input = trained.backward(Gradient::new(weights.clone()), &mut tape)?;
    let d_input = d_input.ok_or_else(|| Error::invalid("check_gradients", "gradient by the input", "none", "one"))?;
    let d_input = d_input.into_tensor(&mut tape)?;

    let mut errors = Vec::new();
    errors.push(compare("input", d_input.as_slice(), |at, step| {
        let mut moved = input.clone();
        moved.as_mut_slice()[at] += step;
        loss(&mut *layer.clone_boxed(), &moved, &weights)
    })?);
    let mut names = Vec::new();
    trained.visit("", &mut |name, parameter| {
        if parameter.trains() {
            names.push((name, parameter.gradient().map(<[f64]>::to_vec).unwrap_or_default(), parameter.len()));
        }
    });
    for (name, mut gradient, len) in names {
        gradient.resize(len, 0.0);
        errors.push(compare(&name, &gradient, |at, step| {
            let mut moved = layer.clone_boxed();
            moved.visit_mut("", &mut |other, parameter| {
                if other == name {
                    parameter.as_mut_slice()[at] += step;
                }
            });
            loss(&mut *moved, input, &weights)
        })?);
    }
    Ok(errors)
}

/// A weight in -1 to 1 for each output.
fn random(output: &Tensor<f64>) -> Result<Tensor<f64>> {
    let mut random = Pcg64::seed_from_u64(1);
    let mut draw = || -> f64 { StandardUniform.sample(&mut random) };
    let values = (0..output.as_slice().len()).map(|_| 2.0 * draw() - 1.0).collect();
    Tensor::from_shape_vec(output.shape(), values)
}

fn loss(layer: &mut dyn Layer<f64>, input: &Tensor<f64>, weights: &Tensor<f64>) -> Result<f64> {
    let mut tape = Tape::new(Runtime::new());
    tape.start(0);
    let signal = Signal::new(input.clone()).with_gradient();
    let output = layer.forward_train(signal, &mut tape)?.into_tensor(&mut tape)?;
    Ok(output.as_slice().iter().zip(weights.as_slice()).map(|(value, weight)| value * weight).sum())
}

fn compare(name: &str, gradient: &[f64], loss: impl Fn(usize, f64) -> Result<f64>) -> Result<GradientError> {
    let (mut greatest, mut worst) = (f64::MIN_POSITIVE, (0, 0.0_f64, 0.0_f64));
    let (len, mut most) = (gradient.len(), 0.0);
    for at in (0..len.min(MOST_COMPARED)).map(|index| if len > MOST_COMPARED { index * PRIME % len } else { index }) {
        let difference = (loss(at, STEP)? - loss(at, -STEP)?) / (2.0 * STEP);
        greatest = greatest.max(difference.abs()).max(gradient[at].abs());
        let apart = (gradient[at] - difference).abs();
        let apart = if apart.is_finite() { apart } else { f64::INFINITY };
        if apart >= most {
            (most, worst) = (apart, (at, gradient[at], difference));
        }
    }
    // Where the true derivative is 0 throughout, what is left is the rounding of the loss.
    let relative = if most.is_finite() { most / greatest.max(1e-3) } else { most };
    Ok(GradientError { name: name.into(), relative, worst })
}
