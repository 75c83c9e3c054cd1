//! `RMSprop` in the two forms that the name stands for.

use num_traits::Float;

use super::{Rule, Step};
use crate::train::check_fraction;
use crate::{Element, Result};

optimizer! {
    /// `RMSprop` (Tieleman & Hinton 2012): gradients divided by the root of their running mean square.
    ///
    /// ```text
    /// d = gradient + weight_decay * value
    ///
    /// PyTorch's form (torch.optim.RMSprop)       TensorFlow's form (RMSPropOptimizer; timm's RMSpropTF)
    /// s = decay * s + (1 - decay) * d^2          s = s + (1 - decay) * (d^2 - s)
    ///     from s = 0                                 from s = 1
    /// u = d / (sqrt(s) + epsilon)                u = d / sqrt(s + epsilon)
    /// m = momentum * m + u                       m = momentum * m + learning_rate * u
    /// value -= learning_rate * m                 value -= m
    /// ```
    ///
    /// Published recipes of one form diverge in the other: the first steps differ by orders of magnitude. Without
    /// momentum `m` is `u`, times the learning rate in TensorFlow's form.
    ///
    /// ```
    /// use mobilenet::train::RmsProp;
    /// let recipe = RmsProp::<f32>::tensorflow(0.045).decay(0.9).momentum(0.9).epsilon(1.0).weight_decay(4e-5);
    /// ```
    RmsProp, RmsPropRule
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct RmsPropRule {
    form: Form,
    decay: f64,
    momentum: f64,
    epsilon: f64,
    weight_decay: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Form {
    PyTorch,
    TensorFlow,
}

impl<T: Element> RmsProp<T> {
    /// PyTorch's form and defaults: decay 0.99, epsilon 1e-8, no momentum.
    pub fn pytorch(learning_rate: f64) -> Self {
        let form = Form::PyTorch;
        Self::with_rule(
            learning_rate,
            RmsPropRule { form, decay: 0.99, momentum: 0.0, epsilon: 1e-8, weight_decay: 0.0 },
        )
    }

    /// TensorFlow's form and defaults: decay 0.9, epsilon 1e-10, no momentum.
    pub fn tensorflow(learning_rate: f64) -> Self {
        let form = Form::TensorFlow;
        Self::with_rule(
            learning_rate,
            RmsPropRule { form, decay: 0.9, momentum: 0.0, epsilon: 1e-10, weight_decay: 0.0 },
        )
    }

    crate::layers::setters! {
        /// Weight of the past in the mean square, at least 0 and below 1.
        #[doc(alias = "alpha")]
        #[doc(alias = "rho")]
        decay: f64 => rule.decay;
        /// Weight of the past in the average that is followed, at least 0 and below 1; 0 remembers nothing.
        momentum: f64 => rule.momentum;
        /// Keeps the divisor from 0; above 0.
        #[doc(alias = "eps")]
        epsilon: f64 => rule.epsilon;
        /// L2 penalty: added to the gradient times the value.
        weight_decay: f64 => rule.weight_decay;
    }
}

impl Rule for RmsPropRule {
    const NAME: &'static str = "rmsprop";

    fn name(&self) -> &'static str {
        match self.form {
            Form::PyTorch => Self::NAME,
            Form::TensorFlow => "rmsprop_tensorflow",
        }
    }

    fn check(&self) -> Result<()> {
        check_fraction(Self::NAME, "decay", self.decay)?;
        check_fraction(Self::NAME, "momentum", self.momentum)?;
        super::check_epsilon(Self::NAME, self.epsilon)
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn slots(&self) -> &'static [(&'static str, f64)] {
        match (self.form, self.momentum > 0.0) {
            (Form::PyTorch, false) => &[("square_average", 0.0)],
            (Form::PyTorch, true) => &[("square_average", 0.0), ("momentum", 0.0)],
            (Form::TensorFlow, false) => &[("square_average", 1.0)],
            (Form::TensorFlow, true) => &[("square_average", 1.0), ("momentum", 0.0)],
        }
    }

    fn update<T: Element>(&self, step: Step, values: &mut [T], gradient: &[T], memory: &mut [&mut [T]]) {
        let constants = [step.learning_rate, step.weight_decay, self.momentum, self.epsilon];
        let [rate, weight_decay, momentum, epsilon] = constants.map(T::from_f64);
        let [past, present] = [self.decay, 1.0 - self.decay].map(T::from_f64);
        let mean_square = |square: T, d: T| match self.form {
            Form::PyTorch => past * square + present * d * d,
            Form::TensorFlow => square + present * (d * d - square),
        };
        let divisor = |square: T| match self.form {
            Form::PyTorch => Float::sqrt(square) + epsilon,
            Form::TensorFlow => Float::sqrt(square + epsilon),
        };
        // The learning rate is a factor of what enters the momentum, or of what leaves it.
        let (enters, leaves) = match self.form {
            Form::PyTorch => (T::one(), rate),
            Form::TensorFlow => (rate, T::one()),
        };
        let pairs = values.iter_mut().zip(gradient);
        match memory {
            [squares, averages] => {
                for (((value, &d), square), average) in pairs.zip(squares.iter_mut()).zip(averages.iter_mut()) {
                    let d = d + weight_decay * *value;
                    *square = mean_square(*square, d);
                    *average = momentum * *average + enters * d / divisor(*square);
                    *value -= leaves * *average;
                }
            }
            [squares] => {
                for ((value, &d), square) in pairs.zip(squares.iter_mut()) {
                    let d = d + weight_decay * *value;
                    *square = mean_square(*square, d);
                    *value -= rate * d / divisor(*square);
                }
            }
            _ => unreachable!("one or two slots"),
        }
    }
}
