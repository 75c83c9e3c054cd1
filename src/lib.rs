//! MobileNet networks on CPUs.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "image")]
pub mod classifier;
mod element;
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
pub mod weights;

#[cfg(feature = "image")]
pub use classifier::{Classifier, Prediction, Predictions};
pub use element::Element;
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
