//! Stochastic gradient descent with momentum.

use super::{Rule, Step};
use crate::train::check_fraction;
use crate::{Element, Error, Result};

optimizer! {
    /// Stochastic gradient descent, with momentum (Polyak 1964; Sutskever et al. 2013) as PyTorch's `SGD` has it.
    ///
    /// ```text
    /// d = gradient + weight_decay * value
    /// m = momentum * m + d                       from m = 0: the first m is d
    /// value -= learning_rate * m                 or (d + momentum * m) with Nesterov's form, d without momentum
    /// ```
    ///
    /// ```
    /// use mobilenet::layers::{Layer, Linear};
    /// use mobilenet::train::{Optimizer, Sgd};
    /// let mut net = Linear::<f32>::builder(2, 1).build()?;
    /// net.visit_mut("", &mut |_, parameter| parameter.gradient_mut().fill(1.0));
    /// let mut optimizer = Sgd::new(0.5).momentum(0.9).nesterov();
    /// optimizer.step(&mut net)?;
    /// assert_eq!(net.bias().unwrap().as_slice(), [-0.95]);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    Sgd, SgdRule
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct SgdRule {
    momentum: f64,
    form: Form,
    weight_decay: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Form {
    Polyak,
    Nesterov,
}

impl<T: Element> Sgd<T> {
    /// With this learning rate, no momentum and no weight decay.
    pub fn new(learning_rate: f64) -> Self {
        Self::with_rule(learning_rate, SgdRule { momentum: 0.0, form: Form::Polyak, weight_decay: 0.0 })
    }

    crate::layers::setters! {
        /// Weight of the past in the average that is followed, at least 0 and below 1; 0 remembers nothing.
        momentum: f64 => rule.momentum;
        /// L2 penalty: added to the gradient times the value.
        weight_decay: f64 => rule.weight_decay;
    }

    /// Looks ahead along the momentum (Nesterov's form); needs a momentum above 0.
    pub fn nesterov(mut self) -> Self {
        self.rule.form = Form::Nesterov;
        self
    }
}

impl Rule for SgdRule {
    const NAME: &'static str = "sgd";

    fn check(&self) -> Result<()> {
        check_fraction(Self::NAME, "momentum", self.momentum)?;
        if self.form == Form::Nesterov && self.momentum == 0.0 {
            return Err(Error::invalid(Self::NAME, "momentum", 0, "above 0 for Nesterov's form"));
        }
        Ok(())
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn slots(&self) -> &'static [(&'static str, f64)] {
        if self.momentum > 0.0 { &[("momentum", 0.0)] } else { &[] }
    }

    fn update<T: Element>(&self, step: Step, values: &mut [T], gradient: &[T], memory: &mut [&mut [T]]) {
        let [rate, decay, momentum] = [step.learning_rate, step.weight_decay, self.momentum].map(T::from_f64);
        let pairs = values.iter_mut().zip(gradient);
        match (memory, self.form) {
            ([averages], Form::Polyak) => {
                for ((value, &d), average) in pairs.zip(averages.iter_mut()) {
                    *average = momentum * *average + (d + decay * *value);
                    *value -= rate * *average;
                }
            }
            ([averages], Form::Nesterov) => {
                for ((value, &d), average) in pairs.zip(averages.iter_mut()) {
                    let d = d + decay * *value;
                    *average = momentum * *average + d;
                    *value -= rate * (d + momentum * *average);
                }
            }
            _ => {
                for (value, &d) in pairs {
                    *value = *value - rate * (d + decay * *value);
                }
            }
        }
    }
}
