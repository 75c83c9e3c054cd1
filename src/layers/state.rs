//! The parameters of a network apart from it: what files hold.
//!
//! Names and array orders are this crate's own; readers of other formats convert before they insert.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use ndarray::ArrayD;

use super::{Layer, Role};
use crate::error::{LoadReport, MisshapenTensor};
use crate::{Element, Error, Result, WeightSource};

/// Named arrays, sorted by name, and the framework they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict<T> {
    tensors: BTreeMap<String, ArrayD<T>>,
    source: Option<WeightSource>,
}

impl<T> Default for StateDict<T> {
    fn default() -> Self {
        Self { tensors: BTreeMap::new(), source: None }
    }
}

/// What to do when names or shapes of a state dict and a network differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadMode {
    /// Any difference is an error that lists them all, and nothing is changed.
    Strict,
    /// What fits is copied; the differences are returned.
    Partial,
}

impl<T: Element> StateDict<T> {
    /// An empty state dict for weights of this source; `None` for arrays that carry no convention.
    #[must_use]
    pub fn new(source: Option<WeightSource>) -> Self {
        Self { tensors: BTreeMap::new(), source }
    }

    /// The framework the weights come from.
    #[must_use]
    pub fn source(&self) -> Option<WeightSource> {
        self.source
    }

    /// Puts an array under a name; returns the one it replaces.
    pub fn insert(&mut self, name: impl Into<String>, array: ArrayD<T>) -> Option<ArrayD<T>> {
        self.tensors.insert(name.into(), array)
    }

    /// The array of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ArrayD<T>> {
        self.tensors.get(name)
    }

    /// Takes out the array of this name.
    pub fn remove(&mut self, name: &str) -> Option<ArrayD<T>> {
        self.tensors.remove(name)
    }

    /// Names and arrays, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ArrayD<T>)> {
        self.tensors.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// Number of arrays.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The parameters of a layer; `source` is the convention they were trained with, if any.
    #[must_use]
    pub fn of(layer: &dyn Layer<T>, source: Option<WeightSource>) -> Self {
        let mut state = Self::new(source);
        layer.visit("", &mut |name, parameter| {
            state.insert(name, parameter.value().clone());
        });
        state
    }

    /// Copies the arrays into a layer's parameters by name. A depthwise weight may come as a grouped
    /// convolution's `[KH, KW, 1, C * M]`, whose elements are in the same order.
    ///
    /// # Errors
    ///
    /// In strict mode, any missing, unexpected or misshapen array: all of them in one error, the layer unchanged.
    pub fn load_into(&self, layer: &mut dyn Layer<T>, mode: LoadMode) -> Result<LoadReport> {
        let report = self.compare(layer, mode)?;
        layer.visit_mut("", &mut |name, parameter| {
            if let Some(array) = self.tensors.get(&name)
                && fits(parameter.role(), array.shape(), parameter.shape())
            {
                for (to, &from) in parameter.as_mut_slice().iter_mut().zip(array) {
                    *to = from;
                }
            }
        });
        Ok(report)
    }

    /// As [`StateDict::load_into`], but hands the arrays over instead of copying them.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn move_into(mut self, layer: &mut dyn Layer<T>, mode: LoadMode) -> Result<LoadReport> {
        let report = self.compare(layer, mode)?;
        layer.visit_mut("", &mut |name, parameter| {
            if let Some(array) = self.tensors.remove(&name)
                && fits(parameter.role(), array.shape(), parameter.shape())
            {
                parameter.replace(array);
            }
        });
        Ok(report)
    }

    /// How the arrays fit the layer.
    fn compare(&self, layer: &dyn Layer<T>, mode: LoadMode) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        let mut known = BTreeSet::new();
        layer.visit("", &mut |name, parameter| {
            match self.tensors.get(&name) {
                None => report.missing.push(name.clone()),
                Some(array) if fits(parameter.role(), array.shape(), parameter.shape()) => report.loaded += 1,
                Some(array) => report.misshapen.push(MisshapenTensor {
                    name: name.clone(),
                    found: array.shape().into(),
                    expected: parameter.shape().into(),
                }),
            }
            known.insert(name);
        });
        report.unexpected = self.tensors.keys().filter(|name| !known.contains(*name)).cloned().collect();
        if mode == LoadMode::Strict && !report.is_exact() {
            return Err(Error::StateMismatch(report));
        }
        Ok(report)
    }
}

impl<'a, T: Element> From<&'a StateDict<T>> for Cow<'a, StateDict<T>> {
    fn from(state: &'a StateDict<T>) -> Self {
        Cow::Borrowed(state)
    }
}

impl<T: Element> From<StateDict<T>> for Cow<'_, StateDict<T>> {
    fn from(state: StateDict<T>) -> Self {
        Cow::Owned(state)
    }
}

fn fits(role: Role, found: &[usize], expected: &[usize]) -> bool {
    let grouped = match (role, expected) {
        (Role::DepthwiseWeight, &[h, w, c, m]) => found == [h, w, 1, c * m],
        _ => false,
    };
    found == expected || grouped
}
