//! Whole networks of the MobileNet family.
//!
//! A builder turns a width multiplier, a weight source and a stage table into a [`Network`]: a chain of blocks and a
//! head. Everything that must match the weights (padding, epsilon, rounding) follows from the source.

mod network;
mod options;
mod v1;
mod v2;

pub use network::{Head, Network};
pub use v1::{MOBILENET_V1_STAGES, MobileNetV1, MobileNetV1Builder, SeparableStage};
pub use v2::{BottleneckStage, MOBILENET_V2_STAGES, MobileNetV2, MobileNetV2Builder};
