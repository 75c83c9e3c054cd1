//! Layers one after another.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Index;

use super::{Gradient, Layer, Signal, Tape, dotted, forward_link, frozen};
use crate::engine::{Graph, Value};
use crate::{Element, Error, Result, Runtime, Shape, Tensor};

/// A chain of layers; each takes the output of the one before. An empty chain is the identity.
///
/// Parameters of a layer have its name in front: its place in the chain (`0`, `1`, ...) unless it was given one.
///
/// ```
/// use mobilenet::layers::{ConvBnRelu, InvertedResidual, Layer, Sequential};
/// let net = Sequential::new()
///     .push(ConvBnRelu::<f32>::builder(3, 32).kernel_size(3).stride(2).build()?)
///     .push(InvertedResidual::builder(32, 16).expand_ratio(6).stride(2).kernel_size(5).build()?);
/// assert_eq!(net.output_shape([1, 64, 64, 3])?, [1, 16, 16, 16]);
/// assert_eq!(net[1].kind(), "InvertedResidual");
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone)]
pub struct Sequential<T: Element> {
    layers: Vec<(String, Box<dyn Layer<T>>)>,
    /// Changes with every layer that is added or replaced; clones, whose layers have the same options, share it.
    identity: Arc<()>,
}

impl<T: Element> fmt::Debug for Sequential<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequential").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl<T: Element> Default for Sequential<T> {
    fn default() -> Self {
        Self { layers: Vec::new(), identity: Arc::default() }
    }
}

impl<T: Element> Sequential<T> {
    /// An empty chain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The chain with this layer at its end, named by its place.
    #[must_use]
    pub fn push(mut self, layer: impl Layer<T> + 'static) -> Self {
        self.layers.push((format!("{}", self.layers.len()), Box::new(layer)));
        self.identity = Arc::default();
        self
    }

    /// The chain with this layer at its end, under a name of its own.
    ///
    /// # Errors
    ///
    /// If the name is empty, taken, or a number (those are places).
    pub fn push_named(mut self, name: &str, layer: impl Layer<T> + 'static) -> Result<Self> {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || self.layers.iter().any(|(taken, _)| taken == name) {
            return Err(Error::invalid(
                "sequential",
                "layer name",
                format_args!("{name:?}"),
                "a new name, not a number",
            ));
        }
        self.layers.push((name.into(), Box::new(layer)));
        self.identity = Arc::default();
        Ok(self)
    }

    /// Puts another layer under a name the chain has; returns the one before.
    ///
    /// # Errors
    ///
    /// If there is no such name.
    pub fn replace(&mut self, name: &str, layer: impl Layer<T> + 'static) -> Result<Box<dyn Layer<T>>> {
        match self.layers.iter_mut().find(|(own, _)| own == name) {
            Some((_, place)) => {
                self.identity = Arc::default();
                Ok(core::mem::replace(place, Box::new(layer)))
            }
            None => Err(Error::invalid("sequential", "layer name", format_args!("{name:?}"), "one the chain has")),
        }
    }

    /// Number of layers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Layers with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Layer<T>)> {
        self.layers.iter().map(|(name, layer)| (name.as_str(), &**layer))
    }

    /// The layer at this place, if there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&dyn Layer<T>> {
        self.layers.get(index).map(|(_, layer)| &**layer)
    }
}

impl<T: Element> Index<usize> for Sequential<T> {
    type Output = dyn Layer<T>;

    fn index(&self, index: usize) -> &Self::Output {
        &*self.layers[index].1
    }
}

impl<T: Element> Layer<T> for Sequential<T> {
    fn kind(&self) -> &'static str {
        "Sequential"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        self.iter().try_fold(input, |shape, (_, layer)| layer.output_shape(shape))
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        let mut output = None;
        for (_, layer) in self.iter() {
            output = Some(layer.forward_with(output.as_ref().unwrap_or(input), runtime)?);
        }
        Ok(output.unwrap_or_else(|| input.clone()))
    }

    fn forward_train(&mut self, input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let is_frozen = |(_, layer): &(String, Box<dyn Layer<T>>)| layer.is_frozen();
        let frozen =
            if input.needs_gradient() { 0 } else { self.layers.iter().take_while(|link| is_frozen(link)).count() };
        let (frozen, rest) = self.layers.split_at_mut(frozen);
        let start = if frozen.is_empty() { input } else { frozen::infer(&self.identity, frozen, input, tape)? };
        rest.iter_mut().try_fold(start, |signal, (_, layer)| forward_link(&mut **layer, signal, tape))
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let mut gradient = d_output;
        for (_, layer) in self.layers.iter_mut().rev() {
            let Some(below) = layer.backward(gradient, tape)? else { return Ok(None) };
            gradient = below;
        }
        Ok(Some(gradient))
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        self.iter().try_fold(input, |value, (own, layer)| layer.lower(graph, &dotted(name, own), value))
    }

    fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
        self.iter().map(|(name, layer)| (name.into(), layer)).collect()
    }

    fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        self.layers.iter_mut().map(|(name, layer)| (name.clone(), &mut **layer as _)).collect()
    }
}
