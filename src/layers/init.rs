//! Seeded initial values of weights, as the frameworks draw them.
//!
//! Every weight draws from a stream of its own, made from the seed and its shape, so the values do not depend on
//! the order in which layers are built; draws are `f64`, so an `f32` network is the rounded `f64` one.

use alloc::vec::Vec;

use num_traits::Float;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

use super::{Parameter, Role};
use crate::{Element, WeightSource};

/// How the weights of convolutions and linear layers start. Biases start at 0; batch normalisation starts as the
/// identity (scale 1, shift 0, running mean 0, running variance 1).
///
/// `fan_in` and `fan_out` count the taps: a 3x3 convolution from 32 to 64 channels has a `fan_out` of 9 x 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Initializer {
    /// `torchvision/models/mobilenetv2.py`: convolutions `N(0, sqrt(2 / fan_out))` (He et al. 2015) with the fan
    /// of all groups together, which makes depthwise weights small; linear layers `N(0, 0.01)`.
    #[default]
    #[doc(alias = "kaiming_normal")]
    Torchvision,
    /// `_init_weight_goog` of `timm/models/_efficientnet_builder.py`: convolutions `N(0, sqrt(2 / fan_out))` with
    /// the fan of one group; linear layers uniform within `1 / sqrt(fan_out)`.
    Timm,
    /// `GlorotUniform`, the default of Keras' layers: uniform within `sqrt(6 / (fan_in + fan_out))` (Glorot &
    /// Bengio 2010), fans read off the kernel's shape, depthwise too.
    #[doc(alias = "glorot_uniform")]
    Keras,
    /// `mobilenet_v1_arg_scope` and `mobilenet_v2.training_scope` of TF-slim: `N(0, 0.09)`, draws beyond two
    /// standard deviations repeated.
    SlimTruncatedNormal,
    /// Zeros, at no cost: for weights that will be loaded.
    Zeros,
}

impl From<WeightSource> for Initializer {
    /// What the framework's own training code uses. Hugging Face's checkpoints are TF-slim's.
    fn from(source: WeightSource) -> Self {
        match source {
            WeightSource::Torchvision => Self::Torchvision,
            WeightSource::Timm => Self::Timm,
            WeightSource::Keras => Self::Keras,
            WeightSource::TfSlim | WeightSource::HuggingFace => Self::SlimTruncatedNormal,
        }
    }
}

/// A distribution with mean 0.
#[derive(Clone, Copy)]
enum Draw {
    /// Standard deviation.
    Normal(f64),
    /// Standard deviation before values beyond two of them are drawn again.
    TruncatedNormal(f64),
    /// Greatest absolute value.
    Uniform(f64),
}

impl Initializer {
    /// A weight of this shape; `groups` is 1 except for grouped and depthwise convolutions.
    pub(super) fn weight<T: Element>(self, role: Role, shape: &[usize], groups: usize, seed: u64) -> Parameter<T> {
        let Some(draw) = self.draw(role, shape, groups) else { return Parameter::filled(role, shape, T::zero()) };
        let seed = shape.iter().fold(seed, |seed, &extent| derive_seed(seed, extent as u64));
        let mut random = Pcg64::seed_from_u64(seed);
        let mut next = || match draw {
            Draw::Normal(deviation) => deviation * standard_normal(&mut random),
            Draw::TruncatedNormal(deviation) => loop {
                let value = standard_normal(&mut random);
                if value.abs() <= 2.0 {
                    return deviation * value;
                }
            },
            Draw::Uniform(limit) => {
                let value: f64 = StandardUniform.sample(&mut random);
                limit * (2.0 * value - 1.0)
            }
        };
        let values: Vec<T> = (0..shape.iter().product()).map(|_| T::from_f64(next())).collect();
        Parameter::new(role, shape, values)
    }

    fn draw(self, role: Role, shape: &[usize], groups: usize) -> Option<Draw> {
        let (last, rest) = shape.split_last()?;
        let taps: usize = if shape.len() == 4 { shape[..2].iter().product() } else { 1 };
        let outputs = if role == Role::DepthwiseWeight { groups * last } else { *last };
        let (fan_out, group_fan_out) = ((taps * outputs) as f64, (taps * outputs / groups) as f64);
        let is_linear = role == Role::LinearWeight;
        Some(match self {
            Self::Torchvision if is_linear => Draw::Normal(0.01),
            Self::Torchvision => Draw::Normal(Float::sqrt(2.0 / fan_out)),
            Self::Timm if is_linear => Draw::Uniform(1.0 / Float::sqrt(fan_out)),
            Self::Timm => Draw::Normal(Float::sqrt(2.0 / group_fan_out)),
            Self::Keras => {
                let fans = rest.iter().product::<usize>() + taps * last;
                Draw::Uniform(Float::sqrt(6.0 / fans as f64))
            }
            Self::SlimTruncatedNormal => Draw::TruncatedNormal(0.09),
            Self::Zeros => return None,
        })
    }
}

fn standard_normal(random: &mut Pcg64) -> f64 {
    StandardNormal.sample(random)
}

/// The seed of part `index` of whatever has this seed: `SplitMix64`'s output function (Steele et al. 2014), which
/// turns neighbouring numbers into unrelated ones.
pub(crate) const fn derive_seed(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and standard deviation of a weight, and its greatest absolute value.
    fn moments(initializer: Initializer, role: Role, shape: &[usize], groups: usize) -> [f64; 3] {
        let weight = initializer.weight::<f64>(role, shape, groups, 3);
        let count = weight.len() as f64;
        let mean = weight.as_slice().iter().sum::<f64>() / count;
        let variance = weight.as_slice().iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        [mean, variance.sqrt(), weight.as_slice().iter().fold(0.0, |greatest, value| greatest.max(value.abs()))]
    }

    #[test]
    fn initializer_deviation_is_the_frameworks() {
        let (conv, depthwise, linear) = (Role::ConvWeight, Role::DepthwiseWeight, Role::LinearWeight);
        let third = 3.0_f64.sqrt();
        for (initializer, role, shape, groups, deviation) in [
            (Initializer::Torchvision, conv, &[3, 3, 16, 64][..], 1, (2.0 / 576.0_f64).sqrt()),
            (Initializer::Torchvision, conv, &[3, 3, 8, 64], 4, (2.0 / 576.0_f64).sqrt()),
            (Initializer::Torchvision, depthwise, &[3, 3, 1024, 1], 1024, (2.0 / 9216.0_f64).sqrt()),
            (Initializer::Torchvision, linear, &[128, 100], 1, 0.01),
            (Initializer::Timm, conv, &[3, 3, 8, 64], 4, (2.0 / 144.0_f64).sqrt()),
            (Initializer::Timm, depthwise, &[3, 3, 512, 2], 512, (2.0 / 18.0_f64).sqrt()),
            (Initializer::Timm, linear, &[128, 100], 1, 0.1 / third),
            (Initializer::Keras, conv, &[3, 3, 16, 64], 1, (6.0 / 720.0_f64).sqrt() / third),
            (Initializer::Keras, depthwise, &[3, 3, 1024, 1], 1024, (6.0 / 9225.0_f64).sqrt() / third),
            (Initializer::Keras, linear, &[128, 100], 1, (6.0 / 228.0_f64).sqrt() / third),
            // A normal distribution cut at two deviations keeps 0.8796 of its deviation.
            (Initializer::SlimTruncatedNormal, conv, &[3, 3, 16, 64], 1, 0.09 * 0.879_63),
        ] {
            let [mean, found, _] = moments(initializer, role, shape, groups);
            assert!((found / deviation - 1.0).abs() < 0.03, "{initializer:?} {role:?}: {found} instead of {deviation}");
            assert!(mean.abs() < 0.05 * deviation, "{initializer:?} {role:?}: mean {mean}");
        }
        assert!(moments(Initializer::SlimTruncatedNormal, conv, &[3, 3, 16, 64], 1)[2] <= 0.18);
        assert!(moments(Initializer::Zeros, linear, &[8, 8], 1)[2] == 0.0);
    }

    #[test]
    fn weights_differ_by_seed_and_shape_alone() {
        let draw = |shape: &[usize], seed| Initializer::Keras.weight::<f32>(Role::LinearWeight, shape, 1, seed);
        assert_eq!(draw(&[4, 8], 1), draw(&[4, 8], 1));
        assert_ne!(draw(&[4, 8], 1), draw(&[4, 8], 2));
        assert_ne!(draw(&[4, 8], 1).as_slice()[0].to_bits(), draw(&[8, 4], 1).as_slice()[0].to_bits());
    }
}
