//! One named array of a layer.

use ndarray::{ArrayD, IxDyn};

use crate::Element;

/// What a parameter is to its layer; decides who decays, freezes or converts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// One named array of a layer, in the order the kernels want, contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<T> {
    value: ArrayD<T>,
    role: Role,
}

impl<T: Element> Parameter<T> {
    /// Takes values in row-major order.
    ///
    /// # Panics
    ///
    /// If their number is not the product of `shape`.
    #[must_use]
    pub fn new(role: Role, shape: &[usize], values: alloc::vec::Vec<T>) -> Self {
        let value = ArrayD::from_shape_vec(IxDyn(shape), values).expect("one value per element of the shape");
        Self { value, role }
    }

    /// All elements the same.
    #[must_use]
    pub fn filled(role: Role, shape: &[usize], value: T) -> Self {
        Self { value: ArrayD::from_elem(IxDyn(shape), value), role }
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
