//! Element types of files, and their widening to ours.
//!
//! Every value passes through `f64`, which holds each of these types exactly but for integers above 2^53; so half
//! precision widens without rounding.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::{Element, Error, Result};

/// Most axes an array may have: twice a convolution's.
pub(super) const MAX_RANK: usize = 8;

/// A little-endian element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    Bool,
    I8,
    U8,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Dtype {
    /// Bytes of one element.
    #[cfg(any(test, feature = "pytorch"))]
    pub(super) const fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// The elements of `bytes`; a rest smaller than one element is left out.
    pub(super) fn decode<T: Element>(self, bytes: &[u8]) -> Vec<T> {
        match self {
            Self::Bool | Self::U8 => read(bytes, |[byte]| byte.into()),
            Self::I8 => read(bytes, |byte| i8::from_le_bytes(byte).into()),
            Self::I16 => read(bytes, |bytes| i16::from_le_bytes(bytes).into()),
            Self::I32 => read(bytes, |bytes| i32::from_le_bytes(bytes).into()),
            Self::I64 => read(bytes, |bytes| i64::from_le_bytes(bytes) as f64),
            Self::F16 => halves(bytes),
            Self::Bf16 => read(bytes, |bytes| bf16::from_le_bytes(bytes).into()),
            Self::F32 => read(bytes, |bytes| f32::from_le_bytes(bytes).into()),
            Self::F64 => read(bytes, f64::from_le_bytes),
        }
    }
}

fn read<T: Element, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| T::from_f64(value(chunk))).collect()
}

/// Half precision, many at once: one by one, each asks anew what the machine can do.
fn halves<T: Element>(bytes: &[u8]) -> Vec<T> {
    const MANY: usize = 256;
    let mut values = Vec::with_capacity(bytes.len() / 2);
    let (mut halves, mut floats) = ([f16::ZERO; MANY], [0.0_f32; MANY]);
    for bytes in bytes.as_chunks().0.chunks(MANY) {
        for (half, &bytes) in halves.iter_mut().zip(bytes) {
            *half = f16::from_le_bytes(bytes);
        }
        halves.convert_to_f32_slice(&mut floats);
        values.extend(floats[..bytes.len()].iter().map(|&value| T::from_f64(value.into())));
    }
    values
}

/// An array of these values in row-major order.
pub(super) fn array<T: Element>(
    format: &'static str,
    name: &str,
    shape: &[usize],
    values: Vec<T>,
) -> Result<ArrayD<T>> {
    if shape.len() > MAX_RANK {
        return Err(Error::format(
            format,
            format_args!("`{name}` has {} axes, expected at most {MAX_RANK}", shape.len()),
        ));
    }
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|error| Error::format(format, format_args!("`{name}` has shape {shape:?}: {error}")))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "widening is exact")]
mod tests {
    use super::*;

    #[test]
    fn half_precision_widens_exactly_for_every_bit_pattern() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            let wide: Vec<f32> = Dtype::F16.decode(&bytes);
            assert!(wide[0].is_nan() || f16::from_f32(wide[0]).to_bits() == bits);
            let wide: Vec<f32> = Dtype::Bf16.decode(&bytes);
            assert!(wide[0].is_nan() || wide[0].to_bits() == u32::from(bits) << 16);
        }
    }

    #[test]
    fn every_type_decodes_its_extremes() {
        fn one(dtype: Dtype, bytes: &[u8]) -> f64 {
            assert_eq!(bytes.len(), dtype.size());
            dtype.decode::<f64>(bytes)[0]
        }
        assert_eq!(one(Dtype::Bool, &[1]), 1.0);
        assert_eq!(one(Dtype::I8, &[0x80]), -128.0);
        assert_eq!(one(Dtype::U8, &[0xff]), 255.0);
        assert_eq!(one(Dtype::I16, &i16::MIN.to_le_bytes()), -32768.0);
        assert_eq!(one(Dtype::I32, &i32::MIN.to_le_bytes()), -2_147_483_648.0);
        assert_eq!(one(Dtype::I64, &(-5_i64).to_le_bytes()), -5.0);
        assert_eq!(one(Dtype::F32, &f32::MIN_POSITIVE.to_le_bytes()), f64::from(f32::MIN_POSITIVE));
        assert_eq!(one(Dtype::F64, &f64::MAX.to_le_bytes()), f64::MAX);
    }
}
