//! MobileNet networks on CPUs: build them at any width, load their published weights, run them fast, or compose others
//! from the same blocks.
//!
//! - [`Tensor`]: a batch of images or maps, `[N, H, W, C]`, over ndarray.
//! - [`layers`]: [`ConvBnRelu`], [`InvertedResidual`] and the rest, behind the trait [`Layer`].
//! - [`models`]: [`MobileNetV1`] and [`MobileNetV2`] with the width multiplier `alpha`.
//! - [`weights`]: [`StateDict::open`](layers::StateDict) reads PyTorch's, TensorFlow's and its own files;
//!   [`WeightSource`] binds the conventions that travel with them.
//! - [`ops`] and [`kernels`]: the math without parameters, on tensors and on slices; [`Runtime`] chooses SIMD level and
//!   threads.
//! - [`train`]: losses, optimizers and the [`Trainer`](train::Trainer); every layer has a backward pass.
//! - [`check`]: for your own tests.
//!
//! With feature `image`, `preprocess` turns photos into inputs, `Classifier` ranks labels and `data` reads folders of
//! photos for training; with `pretrained`, `pretrained::mobilenet_v2` is a classifier whose ImageNet weights are inside
//! the binary.
//!
//! ```
//! use mobilenet::{Layer, MobileNetV2, Tensor};
//!
//! let net = MobileNetV2::<f32>::builder().alpha(0.35).classes(10).build()?;
//! let logits = net.forward(&Tensor::zeros([1, 64, 64, 3])?)?;
//! assert_eq!(logits.shape(), [1, 1, 1, 10]);
//! # Ok::<(), mobilenet::Error>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod aligned;
pub mod check;
#[cfg(feature = "image")]
pub mod classifier;
#[cfg(feature = "image")]
pub mod data;
mod element;
pub mod engine;
mod error;
pub mod kernels;
pub mod layers;
pub mod models;
pub mod ops;
#[cfg(feature = "image")]
pub mod preprocess;
#[cfg(feature = "pretrained")]
pub mod pretrained;
mod runtime;
pub mod shape;
pub mod source;
mod tensor;
pub mod train;
pub mod weights;

#[cfg(feature = "image")]
pub use classifier::{Classifier, Prediction, Predictions};
pub use element::Element;
pub use engine::{CompileOptions, Engine};
pub use error::{Error, LoadReport, MisshapenTensor, Result};
pub use kernels::SimdLevel;
pub use layers::{ConvBnRelu, InvertedResidual, Layer, LoadMode, Sequential, StateDict};
pub use models::{MobileNetV1, MobileNetV2};
pub use ndarray;
#[cfg(feature = "image")]
pub use preprocess::image;
pub use runtime::Runtime;
pub use shape::{Padding, Shape, Window};
pub use source::{Architecture, WeightSource};
pub use tensor::Tensor;

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
