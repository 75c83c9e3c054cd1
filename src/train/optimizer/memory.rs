//! What an optimizer remembers by parameter, and the walk over the network that a step is.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::groups::ParameterGroups;
use super::{OptimizerProgress, OptimizerState, Rule, Step};
use crate::layers::{Layer, Parameter};
use crate::train::check_non_negative;
use crate::{Element, Error, Result, Runtime};

/// Slots of each parameter that was ever updated, by name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Memory<T> {
    steps: u64,
    parameters: BTreeMap<String, Slots<T>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Slots<T> {
    updates: u64,
    /// In the order of [`Rule::slots`].
    values: Vec<Vec<T>>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { steps: 0, parameters: BTreeMap::new() }
    }
}

/// Refuses options outside their range.
pub(super) fn check<R: Rule>(rule: &R, learning_rate: f64, groups: &ParameterGroups) -> Result<()> {
    check_non_negative(R::NAME, "learning rate", learning_rate)?;
    check_non_negative(R::NAME, "weight decay", rule.weight_decay())?;
    groups.check(R::NAME)?;
    rule.check()
}

impl<T: Element> Memory<T> {
    pub(super) fn step<R: Rule>(
        &mut self,
        rule: &R,
        learning_rate: f64,
        groups: &ParameterGroups,
        net: &mut dyn Layer<T>,
        runtime: &Runtime,
    ) -> Result<()> {
        check(rule, learning_rate, groups)?;
        self.check_fit(rule, groups, net)?;
        let mut update = |name: String, parameter: &mut Parameter<T>| {
            if !parameter.trains() {
                return;
            }
            let role = parameter.role();
            let (values, Some(gradient)) = parameter.value_and_gradient() else { return };
            let (factor, weight_decay) = groups.of(&name, role, rule.weight_decay());
            let slots = self.parameters.entry(name).or_insert_with(|| Slots::new(rule, values.len()));
            slots.updates = slots.updates.saturating_add(1);
            let step = Step { learning_rate: learning_rate * factor, weight_decay, updates: slots.updates };
            in_pieces(rule, step, values, gradient, &mut slots.values, runtime);
        };
        // Entered once, not for each parameter.
        runtime.install(|| net.visit_mut("", &mut |name, parameter| update(name, parameter)));
        self.steps = self.steps.saturating_add(1);
        Ok(())
    }

    /// Refuses a network that lacks a remembered parameter or has it in another length, and groups without members.
    fn check_fit<R: Rule>(&self, rule: &R, groups: &ParameterGroups, net: &dyn Layer<T>) -> Result<()> {
        let mut names = Vec::new();
        let mut result = Ok(());
        let mut known = 0;
        net.visit("", &mut |name, parameter| {
            if let Some(slots) = self.parameters.get(&name) {
                known += 1;
                let misfit = slots.values.iter().find(|values| values.len() != parameter.len());
                if let (Ok(()), Some(values)) = (&result, misfit) {
                    let expected = format_args!("{} for {name}", parameter.len());
                    result = Err(Error::invalid(R::NAME, "length of the state", values.len(), expected));
                }
                if let (Ok(()), [kept, wanted]) = (&result, [slots.values.len(), rule.slots().len()])
                    && kept != wanted
                {
                    let expected = format_args!("{wanted} (momentum was set or unset after a step)");
                    result = Err(Error::invalid(R::NAME, "number of slots", kept, expected));
                }
            }
            names.push(name);
        });
        result?;
        if known != self.parameters.len() {
            let stranger = self.parameters.keys().find(|name| !names.contains(name));
            let found = format_args!("for {}", stranger.map_or("a repeated name", String::as_str));
            return Err(Error::invalid(R::NAME, "state", found, "for parameters of the network"));
        }
        groups.check_names(R::NAME, &names)
    }

    pub(super) fn state<R: Rule>(&self, rule: &R, learning_rate: f64) -> OptimizerState<T> {
        let updates = self.parameters.iter().map(|(name, slots)| (name.clone(), slots.updates)).collect();
        let progress = OptimizerProgress { optimizer: rule.name().into(), learning_rate, steps: self.steps, updates };
        let mut state = OptimizerState::new(progress);
        for (parameter, slots) in &self.parameters {
            for ((slot, _), values) in rule.slots().iter().zip(&slots.values) {
                state.insert(slot_name(parameter, slot), values.clone());
            }
        }
        state
    }

    /// Takes a state; returns its learning rate.
    pub(super) fn load<R: Rule>(&mut self, rule: &R, state: OptimizerState<T>) -> Result<f64> {
        let OptimizerState { progress, mut slots } = state;
        if progress.optimizer != rule.name() {
            let expected = format_args!("{:?}", rule.name());
            return Err(Error::invalid(
                R::NAME,
                "kind of the state",
                format_args!("{:?}", progress.optimizer),
                expected,
            ));
        }
        check_non_negative(R::NAME, "learning rate of the state", progress.learning_rate)?;
        let mut parameters = BTreeMap::new();
        for (parameter, updates) in progress.updates {
            let mut values = Vec::new();
            for (slot, _) in rule.slots() {
                let name = slot_name(&parameter, slot);
                let array = slots.remove(&name);
                values.push(array.ok_or_else(|| {
                    Error::invalid(
                        R::NAME,
                        "state",
                        format_args!("without {name}"),
                        "the arrays these options remember",
                    )
                })?);
            }
            parameters.insert(parameter, Slots { updates, values });
        }
        if let Some(name) = slots.into_keys().next() {
            let expected = "only arrays that these options remember";
            return Err(Error::invalid(R::NAME, "state", format_args!("with {name}"), expected));
        }
        *self = Self { steps: progress.steps, parameters };
        Ok(progress.learning_rate)
    }
}

/// Changes a parameter in pieces, which the runtime's threads share.
fn in_pieces<T: Element, R: Rule>(
    rule: &R,
    step: Step,
    values: &mut [T],
    gradient: &[T],
    memory: &mut [Vec<T>],
    runtime: &Runtime,
) {
    let mut slots: Vec<_> = memory.iter_mut().map(|slot| slot.chunks_mut(Runtime::PIECE)).collect();
    let pieces = values.chunks_mut(Runtime::PIECE).zip(gradient.chunks(Runtime::PIECE)).map(|(values, gradient)| {
        let memory: Vec<_> = slots.iter_mut().filter_map(Iterator::next).collect();
        (values, gradient, memory)
    });
    runtime.for_each(pieces.collect(), |(): &mut (), (values, gradient, mut memory)| {
        rule.update(step, values, gradient, &mut memory);
    });
}

impl<T: Element> Slots<T> {
    fn new<R: Rule>(rule: &R, length: usize) -> Self {
        let values = rule.slots().iter().map(|&(_, first)| vec![T::from_f64(first); length]).collect();
        Self { updates: 0, values }
    }
}

fn slot_name(parameter: &str, slot: &str) -> String {
    format!("{parameter}.{slot}")
}
