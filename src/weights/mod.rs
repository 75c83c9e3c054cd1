//! Weight files: to and from [`StateDict`].
//!
//! A file is read whole, its format told from its first bytes, its names and array orders turned into this
//! crate's own by the source the caller names. Nothing in a file is executed, and no size it claims is believed
//! before the bytes behind it are there; `docs/weights.md` has the formats, the name tables and what a hostile
//! file can do.
//!
//! ```no_run
//! use mobilenet::{WeightSource, layers::StateDict};
//! # #[cfg(feature = "safetensors")] {
//! let state = StateDict::<f32>::open("mobilenet_v2-b0353104.pth", WeightSource::Torchvision)?;
//! state.save("mobilenet_v2.safetensors")?;
//! // Our own files carry their source, so none is named.
//! assert_eq!(StateDict::open("mobilenet_v2.safetensors", None)?, state);
//! # }
//! # Ok::<(), mobilenet::Error>(())
//! ```

#[cfg(feature = "safetensors")]
mod atomic;
#[cfg(any(feature = "pytorch", feature = "safetensors"))]
mod dtype;
#[cfg(any(feature = "pytorch", feature = "safetensors"))]
mod file;
mod names;
#[cfg(any(feature = "pytorch", feature = "safetensors"))]
mod open;
#[cfg(feature = "pytorch")]
mod pickle;
#[cfg(feature = "pytorch")]
mod pytorch;
#[cfg(feature = "safetensors")]
mod safetensors;
#[cfg(feature = "pytorch")]
mod zip;

#[cfg(feature = "safetensors")]
pub use safetensors::Precision;

#[cfg(doc)]
use crate::layers::StateDict;
