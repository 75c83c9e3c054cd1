//! Which learning rate and decay a parameter gets.

use alloc::string::String;
use alloc::vec::Vec;

use crate::layers::{Role, matches, setters};
use crate::train::check_non_negative;
use crate::{Error, Result};

/// What a group of parameters does differently; by default nothing.
///
/// ```
/// use mobilenet::train::{GroupOptions, Sgd};
/// let head = GroupOptions::new().learning_rate_factor(10.0);
/// let optimizer = Sgd::<f32>::new(0.01).group("classifier", head);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct GroupOptions {
    learning_rate_factor: f64,
    weight_decay: Option<f64>,
}

impl GroupOptions {
    /// The same as the rest.
    pub const fn new() -> Self {
        Self { learning_rate_factor: 1.0, weight_decay: None }
    }

    setters! {
        /// Multiplies the optimizer's learning rate; at least 0.
        learning_rate_factor: f64 => learning_rate_factor;
    }

    /// Replaces the optimizer's weight decay; at least 0.
    pub const fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The rules of an optimizer, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct ParameterGroups {
    without_decay: Vec<Role>,
    patterns: Vec<(String, GroupOptions)>,
}

impl ParameterGroups {
    pub(super) fn without_decay(&mut self, roles: &[Role]) {
        self.without_decay.extend_from_slice(roles);
    }

    pub(super) fn push(&mut self, pattern: &str, options: GroupOptions) {
        self.patterns.push((pattern.into(), options));
    }

    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        for (_, options) in &self.patterns {
            check_non_negative(operation, "learning-rate factor of a group", options.learning_rate_factor)?;
            check_non_negative(operation, "weight decay of a group", options.weight_decay.unwrap_or(0.0))?;
        }
        Ok(())
    }

    /// Refuses a pattern that means none of these names.
    pub(super) fn check_names(&self, operation: &'static str, names: &[String]) -> Result<()> {
        let unused = self.patterns.iter().find(|(pattern, _)| !names.iter().any(|name| matches(pattern, name)));
        unused.map_or(Ok(()), |(pattern, _)| {
            let expected = "a pattern that means a parameter of the network";
            Err(Error::invalid(operation, "group", format_args!("{pattern:?}"), expected))
        })
    }

    /// Learning-rate factor and weight decay of a parameter, when the optimizer's own decay is this.
    pub(super) fn of(&self, name: &str, role: Role, weight_decay: f64) -> (f64, f64) {
        let weight_decay = if self.without_decay.contains(&role) { 0.0 } else { weight_decay };
        let group = self.patterns.iter().rev().find(|(pattern, _)| matches(pattern, name));
        group.map_or((1.0, weight_decay), |(_, options)| {
            (options.learning_rate_factor, options.weight_decay.unwrap_or(weight_decay))
        })
    }
}
