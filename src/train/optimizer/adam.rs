//! Adam, with weight decay in the gradient or apart from it.

use num_traits::Float;

use super::{Rule, Step};
use crate::train::check_fraction;
use crate::{Element, Result};

optimizer! {
    /// Adam (Kingma & Ba 2015) with the weight decay, if any, in the gradient (L2), as PyTorch's `Adam`.
    ///
    /// ```text
    /// d = gradient + weight_decay * value
    /// m = m + (1 - beta1) * (d - m)              from 0
    /// v = beta2 * v + (1 - beta2) * d^2          from 0
    /// value -= learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
    /// ```
    ///
    /// at the parameter's `t`-th update, counted from 1.
    ///
    /// ```
    /// use mobilenet::train::Adam;
    /// let optimizer = Adam::<f32>::new(1e-3).betas(0.9, 0.98);
    /// ```
    Adam, AdamRule
}

optimizer! {
    /// [`Adam`] with decoupled weight decay (Loshchilov & Hutter 2019) as PyTorch's `AdamW`: the gradient is taken as
    /// it is, and `value -= learning_rate * weight_decay * value` comes first.
    ///
    /// ```
    /// use mobilenet::{layers::Role, train::AdamW};
    /// let optimizer = AdamW::<f32>::new(1e-3).weight_decay(0.05).without_decay(&[Role::Bias, Role::NormScale]);
    /// ```
    AdamW, AdamRule
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct AdamRule {
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Form {
    L2,
    Decoupled,
}

impl AdamRule {
    const fn new(form: Form, weight_decay: f64) -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, form }
    }
}

impl<T: Element> Adam<T> {
    /// PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, no weight decay.
    pub fn new(learning_rate: f64) -> Self {
        Self::with_rule(learning_rate, AdamRule::new(Form::L2, 0.0))
    }
}

impl<T: Element> AdamW<T> {
    /// PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01.
    pub fn new(learning_rate: f64) -> Self {
        Self::with_rule(learning_rate, AdamRule::new(Form::Decoupled, 0.01))
    }
}

macro_rules! adam_setters {
    ($($name:ident)*) => {$(
        impl<T: Element> $name<T> {
            /// Weights of the past in the running means of the gradient and of its square, at least 0 and below 1.
            pub fn betas(mut self, gradient: f64, square: f64) -> Self {
                self.rule.betas = [gradient, square];
                self
            }

            crate::layers::setters! {
                /// Keeps the divisor from 0; above 0.
                #[doc(alias = "eps")]
                epsilon: f64 => rule.epsilon;
                /// How strongly values are drawn to 0.
                weight_decay: f64 => rule.weight_decay;
            }
        }
    )*};
}

adam_setters! { Adam AdamW }

impl Rule for AdamRule {
    const NAME: &'static str = "adam";

    fn name(&self) -> &'static str {
        match self.form {
            Form::L2 => Self::NAME,
            Form::Decoupled => "adamw",
        }
    }

    fn check(&self) -> Result<()> {
        check_fraction(Self::NAME, "first beta", self.betas[0])?;
        check_fraction(Self::NAME, "second beta", self.betas[1])?;
        super::check_epsilon(Self::NAME, self.epsilon)
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn slots(&self) -> &'static [(&'static str, f64)] {
        &[("average", 0.0), ("square_average", 0.0)]
    }

    fn update<T: Element>(&self, step: Step, values: &mut [T], gradient: &[T], memory: &mut [&mut [T]]) {
        let [averages, squares] = memory else { unreachable!("two slots") };
        let Step { learning_rate, weight_decay, updates } = step;
        let (penalty, kept) = match self.form {
            Form::L2 => (weight_decay, 1.0),
            Form::Decoupled => (0.0, 1.0 - learning_rate * weight_decay),
        };
        let corrections = self.betas.map(|beta| 1.0 - Float::powf(beta, updates as f64));
        let rate = learning_rate / corrections[0];
        let root = 1.0 / Float::sqrt(corrections[1]);
        let [penalty, kept, rate, root, epsilon] = [penalty, kept, rate, root, self.epsilon].map(T::from_f64);
        let [new_average, new_square] = self.betas.map(|beta| T::from_f64(1.0 - beta));
        let old_square = T::from_f64(self.betas[1]);
        let pairs = values.iter_mut().zip(gradient);
        for (((value, &d), average), square) in pairs.zip(averages.iter_mut()).zip(squares.iter_mut()) {
            let d = d + penalty * *value;
            *average = *average + new_average * (d - *average);
            *square = old_square * *square + new_square * d * d;
            *value = *value * kept - rate * *average / (Float::sqrt(*square) * root + epsilon);
        }
    }
}
