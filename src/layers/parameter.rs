//! One named array of a layer.

use alloc::vec::Vec;

use ndarray::{ArrayD, IxDyn};

use crate::{Element, Runtime};

/// What a parameter is to its layer; decides who decays, freezes or converts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// Weight of a dense or grouped convolution, `[KH, KW, I, O]`.
    ConvWeight,
    /// Weight of a depthwise convolution, `[KH, KW, C, M]`.
    DepthwiseWeight,
    /// Weight of a linear layer, `[I, O]`.
    LinearWeight,
    /// Bias, `[O]`.
    Bias,
    /// Scale of a normalisation (gamma), `[C]`.
    NormScale,
    /// Shift of a normalisation (beta), `[C]`.
    NormShift,
    /// Running mean or variance, `[C]`: a statistic, not trained.
    RunningStatistic,
}

impl Role {
    /// Whether gradients change it, and parameter counts include it.
    #[must_use]
    pub const fn is_trained(self) -> bool {
        !matches!(self, Self::RunningStatistic)
    }
}

/// One named array of a layer, in the order the kernels want, contiguous; and what training adds to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<T> {
    value: ArrayD<T>,
    role: Role,
    /// As many elements as the value; none before the first gradient, for inference has no use for them.
    gradient: Vec<T>,
    frozen: bool,
}

impl<T: Element> Parameter<T> {
    /// Takes values in row-major order.
    ///
    /// # Panics
    ///
    /// If their number is not the product of `shape`.
    #[must_use]
    pub fn new(role: Role, shape: &[usize], values: Vec<T>) -> Self {
        let value = ArrayD::from_shape_vec(IxDyn(shape), values).expect("one value per element of the shape");
        Self { value, role, gradient: Vec::new(), frozen: false }
    }

    /// All elements the same.
    #[must_use]
    pub fn filled(role: Role, shape: &[usize], value: T) -> Self {
        Self { value: ArrayD::from_elem(IxDyn(shape), value), role, gradient: Vec::new(), frozen: false }
    }

    /// What it is to its layer.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Its values as an array.
    #[must_use]
    pub fn value(&self) -> &ArrayD<T> {
        &self.value
    }

    /// Its values in row-major order.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the constructors make a standard layout")]
    pub fn as_slice(&self) -> &[T] {
        self.value.as_slice().expect("standard layout")
    }

    /// Its values in row-major order, to write to.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the constructors make a standard layout")]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.value.as_slice_mut().expect("standard layout")
    }

    /// What was accumulated of the loss's derivative by each element, in row-major order; `None` before the first.
    #[must_use]
    pub fn gradient(&self) -> Option<&[T]> {
        (!self.gradient.is_empty()).then_some(&self.gradient)
    }

    /// The gradient to add to; zeros the first time.
    #[must_use]
    pub fn gradient_mut(&mut self) -> &mut [T] {
        self.gradient.resize(self.value.len(), T::zero());
        &mut self.gradient
    }

    /// The values to change, and their gradient if there is one.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the constructors make a standard layout")]
    pub fn value_and_gradient(&mut self) -> (&mut [T], Option<&[T]>) {
        let gradient = (!self.gradient.is_empty()).then_some(&*self.gradient);
        (self.value.as_slice_mut().expect("standard layout"), gradient)
    }

    /// The values, and the gradient to add to: zeros the first time; empty for a frozen parameter.
    pub(super) fn parts_mut(&mut self) -> (&[T], &mut [T]) {
        if !self.frozen {
            self.gradient.resize(self.value.len(), T::zero());
        }
        (self.value.as_slice().expect("standard layout"), &mut self.gradient)
    }

    /// Starts a new accumulation, in the same memory.
    pub fn zero_gradient(&mut self) {
        self.gradient.fill(T::zero());
    }

    /// The same on the runtime's threads.
    pub(crate) fn zero_gradient_with(&mut self, runtime: &Runtime) {
        runtime.for_each_chunk(&mut self.gradient, Runtime::PIECE, |_, piece| piece.fill(T::zero()));
    }

    /// Whether gradients change it: neither a running statistic nor frozen.
    #[must_use]
    pub fn trains(&self) -> bool {
        self.role.is_trained() && !self.frozen
    }

    /// Whether training leaves it alone.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Keeps training from changing it, and frees its gradient. A frozen running statistic is the one that its
    /// normalisation uses.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.gradient = Vec::new();
    }

    /// Lets training change it.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Takes as many values in place of its own; their shape may differ, the parameter's stays.
    pub(super) fn replace(&mut self, array: ArrayD<T>) {
        let shape = IxDyn(self.shape());
        if array.is_standard_layout() && array.len() == self.len() {
            self.value = array.into_shape_with_order(shape).expect("as many elements");
        } else {
            for (to, &from) in self.as_mut_slice().iter_mut().zip(&array) {
                *to = from;
            }
        }
    }
}
