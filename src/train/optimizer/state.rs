//! What an optimizer remembers, apart from it: what checkpoints hold.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Everything the next step depends on besides the options and the network: with both, a resumed run is bit-identical.
///
/// It is a serde value as a whole; a file that stores arrays its own way takes [`progress`](Self::progress) as the
/// serde value and [`slots`](Self::slots) as named arrays, and builds it again with [`new`](Self::new) and
/// [`insert`](Self::insert).
///
/// ```
/// use mobilenet::train::{Adam, Optimizer, OptimizerState};
/// let mut optimizer = Adam::<f32>::new(1e-3);
/// let state = optimizer.state();
/// let mut copy = OptimizerState::new(state.progress().clone());
/// for (name, values) in state.slots() {
///     copy.insert(name, values.to_vec());
/// }
/// assert_eq!(copy, state);
/// optimizer.load_state(copy)?;
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OptimizerState<T> {
    pub(super) progress: OptimizerProgress,
    pub(super) slots: BTreeMap<String, Vec<T>>,
}

/// The part of an [`OptimizerState`] that is not arrays.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct OptimizerProgress {
    /// The kind of optimizer: `sgd`, `rmsprop`, `rmsprop_tensorflow`, `adam` or `adamw`.
    pub optimizer: String,
    /// The learning rate of the next step.
    pub learning_rate: f64,
    /// Steps so far.
    pub steps: u64,
    /// Updates of each parameter by name: fewer than the steps, if it was frozen for a while.
    pub updates: BTreeMap<String, u64>,
}

impl<T> OptimizerState<T> {
    /// A state without arrays.
    #[must_use]
    pub fn new(progress: OptimizerProgress) -> Self {
        Self { progress, slots: BTreeMap::new() }
    }

    /// All but the arrays.
    #[must_use]
    pub fn progress(&self) -> &OptimizerProgress {
        &self.progress
    }

    /// Names and arrays, sorted by name: the parameter's name, a dot and the slot's, such as
    /// `features.0.weight.momentum`.
    pub fn slots(&self) -> impl Iterator<Item = (&str, &[T])> {
        self.slots.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Puts an array under such a name; returns the one it replaces.
    pub fn insert(&mut self, name: impl Into<String>, values: Vec<T>) -> Option<Vec<T>> {
        self.slots.insert(name.into(), values)
    }
}
