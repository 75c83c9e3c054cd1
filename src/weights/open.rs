//! Opening a file: which format it is, whose names it has.

use std::path::Path;

use ndarray::ArrayD;

use super::file;
use crate::layers::StateDict;
use crate::{Element, Error, Result, WeightSource};

/// What a reader hands over.
pub(super) struct Contents<T> {
    /// Names and arrays as the file has them.
    pub(super) tensors: Vec<(String, ArrayD<T>)>,
    pub(super) names: Names,
}

/// Whose names and array orders a file has.
pub(super) enum Names {
    /// Ours: this crate wrote it, with weights of this source.
    #[cfg_attr(not(feature = "safetensors"), expect(dead_code, reason = "only safetensors says who wrote it"))]
    Ours(Option<WeightSource>),
    /// Some framework's; which one, the file does not say.
    Foreign,
}

impl<T: Element> StateDict<T> {
    /// Reads a weight file: `.safetensors`, or a PyTorch state dict in its zip or its older container. The format is
    /// told from the bytes; half precision is widened.
    ///
    /// `source` is whose names and array orders the file has, such as [`WeightSource::Torchvision`]. Files written by
    /// this crate carry their source: give `None` for those. Arrays whose names the source does not have keep them,
    /// so that a strict load lists them as unexpected.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is longer than 1 GiB, malformed, or of a format this build leaves out; if it says
    /// another source than the caller, or neither says one; if two arrays have the same name here.
    pub fn open(path: impl AsRef<Path>, source: impl Into<Option<WeightSource>>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(&file::read(path)?, source).map_err(|error| match error {
            Error::Format { format, reason } => {
                Error::format(format, format_args!("{reason} (reading {})", path.display()))
            }
            other => other,
        })
    }

    /// As [`StateDict::open`], from memory.
    ///
    /// # Errors
    ///
    /// As [`StateDict::open`].
    pub fn from_bytes(bytes: &[u8], source: impl Into<Option<WeightSource>>) -> Result<Self> {
        let contents = read(bytes)?;
        match (source.into(), contents.names) {
            (Some(source), Names::Foreign) => Self::from_source(contents.tensors, source),
            (named, Names::Ours(written)) => {
                if named.is_some() && named != written {
                    let name = |source: Option<WeightSource>| source.map_or("none", WeightSource::name);
                    return Err(Error::invalid(
                        "open weights",
                        "source",
                        name(named),
                        format_args!("{}, which the file was saved with", name(written)),
                    ));
                }
                let mut state = Self::new(written);
                for (name, array) in contents.tensors {
                    state.insert(name, array);
                }
                Ok(state)
            }
            (None, Names::Foreign) => Err(Error::invalid(
                "open weights",
                "source",
                "none",
                "one, since the file was not written by this crate and does not say whose names it has",
            )),
        }
    }
}

/// Tells the format from the first bytes and reads it.
fn read<T: Element>(bytes: &[u8]) -> Result<Contents<T>> {
    const UNKNOWN: &str = "weight file";
    /// Where a tar archive has its signature.
    const TAR_MAGIC: core::ops::Range<usize> = 257..262;
    // The length of a header is far below 2^32. First, because it may spell the `PK` of an archive; an archive and a
    // pickle have other bytes from here on.
    if let Some([.., 0, 0, 0, 0, b'{']) = bytes.get(..9) {
        return safetensors(bytes);
    }
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Err(Error::format(
            UNKNOWN,
            "HDF5 files (Keras `.h5`) are not supported: write the arrays to safetensors under their Keras names",
        ));
    }
    if bytes.get(TAR_MAGIC) == Some(b"ustar") {
        return Err(Error::format(
            UNKNOWN,
            "the tar container (PyTorch before 0.1.10) is not supported: load and save it with a newer PyTorch",
        ));
    }
    match bytes {
        [b'P', b'K', ..] | [0x80, ..] => pytorch(bytes),
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors(bytes),
        _ => Err(Error::format(UNKNOWN, "neither safetensors nor a PyTorch state dict")),
    }
}

#[cfg(feature = "pytorch")]
fn pytorch<T: Element>(bytes: &[u8]) -> Result<Contents<T>> {
    Ok(Contents { tensors: super::pytorch::read(bytes)?, names: Names::Foreign })
}

#[cfg(not(feature = "pytorch"))]
fn pytorch<T: Element>(_: &[u8]) -> Result<Contents<T>> {
    Err(Error::format("pytorch", "this build leaves PyTorch files out: turn on the feature `pytorch`"))
}

#[cfg(feature = "safetensors")]
fn safetensors<T: Element>(bytes: &[u8]) -> Result<Contents<T>> {
    super::safetensors::read(bytes)
}

#[cfg(not(feature = "safetensors"))]
fn safetensors<T: Element>(_: &[u8]) -> Result<Contents<T>> {
    Err(Error::format("safetensors", "this build leaves safetensors out: turn on the feature `safetensors`"))
}
