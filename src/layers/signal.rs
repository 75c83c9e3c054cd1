//! What passes between layers in training: maps on their way forward, gradients on their way back.
//!
//! Normalisations and activations are not computed where they stand but handed on with the map they belong to, and the
//! next convolution applies them as it reads. A layer that wants plain values asks for them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Tape;
use crate::kernels::Clamp;
use crate::ops::{self, Affine, GradientSums, Lazy, LazyGradient};
use crate::{Element, Result, Shape, Tensor};

/// A map on its way forward. Cheap to clone: the values are shared.
#[derive(Clone, Debug)]
pub struct Signal<T> {
    pub(super) map: Arc<Tensor<T>>,
    pub(super) affine: Option<Arc<Affine<T>>>,
    needs_gradient: bool,
}

impl<T: Element> Signal<T> {
    /// The input of a network: nothing is pending, and no gradient by it is wanted.
    #[must_use]
    pub fn new(map: Tensor<T>) -> Self {
        Self { map: Arc::new(map), affine: None, needs_gradient: false }
    }

    /// The output of a layer: its backward pass will be asked for if a parameter below trains.
    #[must_use]
    pub fn output(map: Tensor<T>, needs_gradient: bool) -> Self {
        Self { map: Arc::new(map), affine: None, needs_gradient }
    }

    /// The same, with a gradient by it wanted.
    #[must_use]
    pub fn with_gradient(self) -> Self {
        Self { needs_gradient: true, ..self }
    }

    /// The same map, with this to be applied.
    pub(super) fn pending(self, affine: Affine<T>) -> Self {
        Self { affine: Some(Arc::new(affine)), ..self }
    }

    /// Whether a parameter below trains, so that the gradient by this map is wanted.
    #[must_use]
    pub fn needs_gradient(&self) -> bool {
        self.needs_gradient
    }

    /// `[N, H, W, C]`.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.map.shape()
    }

    pub(super) fn lazy(&self) -> Lazy<'_, T> {
        Lazy { map: &self.map, affine: self.affine.as_deref() }
    }

    /// The same signal with everything applied.
    pub(super) fn settled(self, tape: &mut Tape<T>) -> Result<Self> {
        if self.affine.is_none() {
            return Ok(self);
        }
        let mut map = tape.tensor(self.shape())?;
        ops::apply(self.lazy(), &mut map, tape.runtime())?;
        let settled = Self::output(map, self.needs_gradient);
        tape.recycle(self);
        Ok(settled)
    }

    /// The same elements in another shape; applied first, unless the shape is the same.
    pub(super) fn reshaped(self, shape: Shape, tape: &mut Tape<T>) -> Result<Self> {
        if shape == self.shape() {
            return Ok(self);
        }
        let needs_gradient = self.needs_gradient;
        Ok(Self::output(self.into_tensor(tape)?.reshaped(shape)?, needs_gradient))
    }

    /// The values, everything applied.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub fn into_tensor(self, tape: &mut Tape<T>) -> Result<Tensor<T>> {
        let settled = self.settled(tape)?;
        Ok(Arc::try_unwrap(settled.map).unwrap_or_else(|shared| (*shared).clone()))
    }
}

/// What makes a gradient by a normalisation's output one by its input.
#[derive(Clone, Debug)]
pub(super) struct Through<T> {
    pub(super) input: Arc<Tensor<T>>,
    pub(super) constants: [Vec<T>; 3],
}

/// A gradient on its way back.
#[derive(Clone, Debug)]
pub struct Gradient<T> {
    pub(super) map: Tensor<T>,
    /// Of a map that an affine was pending on: then `map` is the gradient by what its clamp cut.
    pub(super) sums: Option<GradientSums>,
    pub(super) through: Option<Through<T>>,
}

impl<T: Element> Gradient<T> {
    /// The loss's derivative by each element of a layer's output.
    #[must_use]
    pub fn new(map: Tensor<T>) -> Self {
        Self { map, sums: None, through: None }
    }

    /// Its shape, `[N, H, W, C]`.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.map.shape()
    }

    pub(super) fn lazy(&self) -> LazyGradient<'_, T> {
        let through = self.through.as_ref().map(|through| {
            let [a, b, c] = &through.constants;
            (&*through.input, [a.as_slice(), b, c])
        });
        LazyGradient { map: &self.map, through }
    }

    /// The values.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub fn into_tensor(self, tape: &mut Tape<T>) -> Result<Tensor<T>> {
        if self.through.is_none() {
            return Ok(self.map);
        }
        let mut map = tape.tensor(self.shape())?;
        ops::combine(self.lazy(), &mut map, tape.runtime())?;
        tape.recycle_gradient(self);
        Ok(map)
    }

    /// The gradient by what the clamp of a signal cut, with its sums.
    pub(super) fn masked(mut self, output: &Signal<T>, tape: &mut Tape<T>) -> Result<(Tensor<T>, GradientSums)> {
        if let Some(sums) = self.sums {
            return Ok((self.map, sums));
        }
        if self.through.is_some() {
            self = Self::new(self.into_tensor(tape)?);
        }
        let identity;
        let affine = if let Some(affine) = output.affine.as_deref() {
            affine
        } else {
            identity = Affine::activation(output.shape()[3], Clamp::none());
            &identity
        };
        let sums = ops::mask(output.lazy(), affine, &mut self.map, tape.runtime())?;
        Ok((self.map, sums))
    }
}
