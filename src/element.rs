//! The number types a tensor may hold.
//!
//! `f32` is what networks run in and has SIMD kernels; `f64` is what gradients and goldens are checked in.

use alloc::vec::Vec;
use core::fmt;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A floating-point type that tensors, layers and models are generic over: `f32` or `f64`.
///
/// Sealed: the kernels know both by name.
pub trait Element:
    sealed::Sealed
    + num_traits::Float
    + fearless_simd::SimdFloatElement
    + ndarray::LinalgScalar
    + core::iter::Sum
    + core::ops::AddAssign
    + core::ops::MulAssign
    + Default
    + fmt::Debug
    + fmt::Display
    + Send
    + Sync
    + 'static
{
    /// `"f32"` or `"f64"`, as kernel ids and file formats write it.
    const NAME: &'static str;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;

    /// The value, exactly.
    fn to_f64(self) -> f64;

    /// The slice itself if this type is `f32`: the way from generic code to the SIMD kernels.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;

    /// The values rounded to `f32`; themselves, if this type is `f32`.
    fn into_f32(values: Vec<Self>) -> Vec<f32>;

    /// As [`Element::as_f32`], to write to.
    fn as_f32_mut(slice: &mut [Self]) -> Option<&mut [f32]>;
}

impl Element for f32 {
    const NAME: &'static str = "f32";

    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }

    fn into_f32(values: Vec<Self>) -> Vec<f32> {
        values
    }

    fn as_f32_mut(slice: &mut [Self]) -> Option<&mut [f32]> {
        Some(slice)
    }
}

impl Element for f64 {
    const NAME: &'static str = "f64";

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn into_f32(values: Vec<Self>) -> Vec<f32> {
        values.into_iter().map(f32::from_f64).collect()
    }

    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}
