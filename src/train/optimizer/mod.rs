//! Optimizers: from gradients to the next values of the parameters.
//!
//! What they share is here and in `memory`: who is updated, with which learning rate and decay, and what is remembered
//! between steps. Each file beside holds one [`Rule`]: the formula for a single parameter.

/// An optimizer around a [`Rule`]: its configuration is its serde value, what it remembers is its state.
macro_rules! optimizer {
    ($(#[$attribute:meta])* $name:ident, $rule:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
        #[must_use]
        pub struct $name<T> {
            learning_rate: f64,
            rule: $rule,
            groups: $crate::train::optimizer::groups::ParameterGroups,
            #[cfg_attr(feature = "serde", serde(skip))]
            memory: $crate::train::optimizer::memory::Memory<T>,
        }

        impl<T: $crate::Element> $name<T> {
            fn with_rule(learning_rate: f64, rule: $rule) -> Self {
                Self { learning_rate, rule, groups: Default::default(), memory: Default::default() }
            }

            /// Leaves parameters of these roles out of weight decay.
            pub fn without_decay(mut self, roles: &[$crate::layers::Role]) -> Self {
                self.groups.without_decay(roles);
                self
            }

            /// Gives the parameters that a pattern means options of their own. A pattern is a parameter's name or a
            /// dotted prefix of it (`classifier`), with `*` for any run of characters. Of several that mean the same
            /// parameter the last one decides, and its decay goes before [`without_decay`](Self::without_decay). A
            /// pattern that means no parameter of the network is an error of the step.
            pub fn group(mut self, pattern: &str, options: $crate::train::GroupOptions) -> Self {
                self.groups.push(pattern, options);
                self
            }
        }

        impl<T: $crate::Element> $crate::train::Optimizer<T> for $name<T> {
            fn check(&self) -> $crate::Result<()> {
                $crate::train::optimizer::memory::check(&self.rule, self.learning_rate, &self.groups)
            }

            fn step_with(&mut self, net: &mut dyn $crate::Layer<T>, runtime: &$crate::Runtime) -> $crate::Result<()> {
                self.memory.step(&self.rule, self.learning_rate, &self.groups, net, runtime)
            }

            fn learning_rate(&self) -> f64 {
                self.learning_rate
            }

            fn set_learning_rate(&mut self, learning_rate: f64) {
                self.learning_rate = learning_rate;
            }

            fn state(&self) -> $crate::train::OptimizerState<T> {
                self.memory.state(&self.rule, self.learning_rate)
            }

            fn load_state(&mut self, state: $crate::train::OptimizerState<T>) -> $crate::Result<()> {
                self.learning_rate = self.memory.load(&self.rule, state)?;
                Ok(())
            }
        }
    };
}

mod adam;
mod groups;
mod memory;
mod rmsprop;
mod sgd;
mod state;

pub use adam::{Adam, AdamW};
pub use groups::GroupOptions;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;
pub use state::{OptimizerProgress, OptimizerState};

use alloc::boxed::Box;
use core::fmt;

use crate::layers::Layer;
use crate::{Element, Error, Result, Runtime};

/// Changes the trained parameters of a network by their gradients.
///
/// Frozen parameters, running statistics and parameters that have no gradient yet are left alone.
pub trait Optimizer<T: Element>: fmt::Debug + Send {
    /// Refuses options outside their range, as the first step would.
    ///
    /// # Errors
    ///
    /// As said.
    fn check(&self) -> Result<()>;

    /// One step on the gradients that have accumulated. It does not clear them. Results do not depend on the threads.
    ///
    /// # Errors
    ///
    /// If an option is outside its range, a group's pattern means no parameter, or the state belongs to another network
    /// (names or lengths differ); then nothing is changed.
    fn step_with(&mut self, net: &mut dyn Layer<T>, runtime: &Runtime) -> Result<()>;

    /// One step on the calling thread.
    ///
    /// # Errors
    ///
    /// As [`Optimizer::step_with`].
    fn step(&mut self, net: &mut dyn Layer<T>) -> Result<()> {
        self.step_with(net, &Runtime::new())
    }

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Sets it: what a [`Schedule`](crate::train::Schedule) does before each step.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// What the next step depends on besides the options: a copy.
    fn state(&self) -> OptimizerState<T>;

    /// Goes on from such a state, learning rate included.
    ///
    /// # Errors
    ///
    /// If it comes from another kind of optimizer, or from options that remember other things (momentum or none); then
    /// nothing is changed. Whether it fits the network is found at the next step.
    fn load_state(&mut self, state: OptimizerState<T>) -> Result<()>;
}

impl<T: Element, O: Optimizer<T> + ?Sized> Optimizer<T> for Box<O> {
    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn step_with(&mut self, net: &mut dyn Layer<T>, runtime: &Runtime) -> Result<()> {
        (**self).step_with(net, runtime)
    }

    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        (**self).set_learning_rate(learning_rate);
    }

    fn state(&self) -> OptimizerState<T> {
        (**self).state()
    }

    fn load_state(&mut self, state: OptimizerState<T>) -> Result<()> {
        (**self).load_state(state)
    }
}

/// The formula of an optimizer.
trait Rule: Sync {
    /// What errors call it.
    const NAME: &'static str;

    /// What states call it: rules that cannot go on from each other's have different names.
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// Refuses options outside their range.
    fn check(&self) -> Result<()>;

    /// The decay of parameters that no group says otherwise for.
    fn weight_decay(&self) -> f64;

    /// What is remembered per element between steps: name and first value.
    fn slots(&self) -> &'static [(&'static str, f64)];

    /// Changes a piece of a parameter. All slices have its length; there is one of `memory` per slot.
    fn update<T: Element>(&self, step: Step, values: &mut [T], gradient: &[T], memory: &mut [&mut [T]]);
}

/// What a rule is told besides its own options.
#[derive(Clone, Copy, Debug)]
struct Step {
    learning_rate: f64,
    weight_decay: f64,
    /// Updates of this parameter, this one included.
    updates: u64,
}

/// Refuses an epsilon that is 0 in either element type: the divisor of a gradient that is always 0 would be too.
fn check_epsilon(operation: &'static str, epsilon: f64) -> Result<()> {
    if epsilon >= f64::from(f32::MIN_POSITIVE) && epsilon.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(operation, "epsilon", epsilon, "a finite number, at least 1.2e-38"))
}
