//! The safetensors format: a JSON header, then the arrays.
//!
//! The header is checked by the `safetensors` crate (offsets without holes or overlaps, sizes that match shapes); its
//! length and the file's end are checked here, because its own `deserialize` adds them without a check and so panics
//! in a debug build on sizes near 2^64.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype as FileDtype, Metadata, View};

use super::atomic;
use super::dtype::{Dtype, array};
use super::file;
use super::open::{Contents, Names};
use crate::layers::StateDict;
use crate::{Element, Error, Result, WeightSource};

const FORMAT: &str = "safetensors";

/// Longest header: MobileNetV2's has 30 KB. Parsing takes several times its length in memory, and far longer than data.
const MAX_HEADER_LEN: usize = 1 << 20;

/// Metadata key that marks a file as ours; its value is the source's name or [`NO_SOURCE`].
const SOURCE_KEY: &str = "mobilenet.source";
const NO_SOURCE: &str = "none";

/// Metadata key of what a checkpoint holds besides arrays.
const NOTE_KEY: &str = "mobilenet.training";

/// How exactly values are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// As they are: f32 or f64.
    #[default]
    Full,
    /// Rounded to IEEE half precision: half the size of f32, three decimal digits.
    Half,
}

impl<T: Element> StateDict<T> {
    /// Writes a `.safetensors` file with our names, marked with its source; [`StateDict::open`] reads it back.
    ///
    /// The file is complete or unchanged: a failure leaves what was there before.
    ///
    /// # Errors
    ///
    /// If the system refuses to write, or as [`StateDict::to_bytes`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_as(path, Precision::Full)
    }

    /// As [`StateDict::save`] at another precision.
    ///
    /// # Errors
    ///
    /// If the system refuses to write, or as [`StateDict::to_bytes`].
    pub fn save_as(&self, path: impl AsRef<Path>, precision: Precision) -> Result<()> {
        atomic::write(path.as_ref(), &self.to_bytes(precision)?)
    }

    /// The bytes of a `.safetensors` file: equal for equal state dicts.
    ///
    /// ```
    /// use mobilenet::{layers::StateDict, ndarray::arr1, weights::Precision};
    /// let mut state = StateDict::new(None);
    /// state.insert("head.bias", arr1(&[0.5_f32, -1.0]).into_dyn());
    /// let bytes = state.to_bytes(Precision::Half)?;
    /// assert_eq!(StateDict::from_bytes(&bytes, None)?, state);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a finite value is too large for the precision, or names and shapes take more than 1 MiB (9000 arrays or so).
    pub fn to_bytes(&self, precision: Precision) -> Result<Vec<u8>> {
        self.encode(precision, None)
    }

    /// As [`StateDict::save`], with a note in the metadata.
    pub(crate) fn save_with(&self, path: &Path, note: &str) -> Result<()> {
        atomic::write(path, &self.encode(Precision::Full, Some(note))?)
    }

    /// Reads what [`StateDict::save_with`] wrote: arrays, and the note if there is one.
    pub(crate) fn open_with(path: &Path) -> Result<(Self, Option<String>)> {
        let bytes = file::read(path)?;
        let mut state = Self::new(None);
        for (name, array) in read(&bytes)?.tensors {
            state.insert(name, array);
        }
        let header: Metadata =
            serde_json::from_slice(split(&bytes)?.0).map_err(|reason| Error::format(FORMAT, reason))?;
        let note = header.metadata().as_ref().and_then(|metadata| metadata.get(NOTE_KEY)).cloned();
        Ok((state, note))
    }

    fn encode(&self, precision: Precision, note: Option<&str>) -> Result<Vec<u8>> {
        let mut encoded = Vec::with_capacity(self.len());
        for (name, array) in self.iter() {
            encoded.push((name, Encoded::new(name, array.shape(), array.iter().copied(), precision)?));
        }
        let source = self.source().map_or(NO_SOURCE, WeightSource::name);
        let mut metadata = HashMap::from([(SOURCE_KEY.to_owned(), source.to_owned())]);
        if let Some(note) = note {
            metadata.insert(NOTE_KEY.to_owned(), note.to_owned());
        }
        let sorted =
            serde_json::to_vec(&BTreeMap::from_iter(&metadata)).map_err(|error| Error::format(FORMAT, error))?;
        let mut bytes =
            safetensors::serialize(encoded, Some(metadata)).map_err(|error| Error::format(FORMAT, error))?;
        // What is written can be read.
        split(&bytes)?;
        sort_metadata(&mut bytes, &sorted);
        Ok(bytes)
    }
}

/// Puts a file's metadata, which comes in a hash map's order and so in another one for each file, in the order of its
/// keys.
fn sort_metadata(bytes: &mut [u8], sorted: &[u8]) {
    const BEFORE: &[u8] = br#"{"__metadata__":"#;
    let header = &mut bytes[size_of::<u64>()..];
    if header.starts_with(BEFORE) {
        header[BEFORE.len()..][..sorted.len()].copy_from_slice(sorted);
    }
}

/// One array as the file holds it.
struct Encoded {
    dtype: FileDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Encoded {
    fn new<T: Element>(
        name: &str,
        shape: &[usize],
        values: impl Iterator<Item = T>,
        precision: Precision,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        let dtype = match precision {
            Precision::Full if T::NAME == f32::NAME => {
                values.for_each(|value| bytes.extend(f32::from_f64(value.to_f64()).to_le_bytes()));
                FileDtype::F32
            }
            Precision::Full => {
                values.for_each(|value| bytes.extend(value.to_f64().to_le_bytes()));
                FileDtype::F64
            }
            Precision::Half => {
                for value in values {
                    let half = f16::from_f64(value.to_f64());
                    if value.is_finite() && !half.is_finite() {
                        return Err(Error::invalid(
                            "save",
                            "precision",
                            format_args!("half, for `{name}` with a value of {value}"),
                            "full, or values up to 65504",
                        ));
                    }
                    bytes.extend(half.to_le_bytes());
                }
                FileDtype::F16
            }
        };
        Ok(Self { dtype, shape: shape.into(), bytes })
    }
}

impl View for Encoded {
    fn dtype(&self) -> FileDtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Header and data of a file.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let error = |reason: &dyn core::fmt::Display| Error::format(FORMAT, reason);
    let (&len, rest) = bytes.split_first_chunk().ok_or_else(|| error(&"the file has less than 8 bytes"))?;
    let len = u64::from_le_bytes(len);
    let (header, data) = usize::try_from(len)
        .ok()
        .and_then(|len| rest.split_at_checked(len))
        .ok_or_else(|| error(&format_args!("the header has {len} bytes, but {} follow", rest.len())))?;
    if header.len() > MAX_HEADER_LEN {
        return Err(error(&format_args!("the header has {len} bytes, expected at most {MAX_HEADER_LEN}")));
    }
    Ok((header, data))
}

/// Reads a file's arrays, and whether we wrote it.
pub(super) fn read<T: Element>(bytes: &[u8]) -> Result<Contents<T>> {
    let error = |reason: &dyn core::fmt::Display| Error::format(FORMAT, reason);
    let (header, data) = split(bytes)?;
    let header: Metadata = serde_json::from_slice(header).map_err(|reason| error(&reason))?;
    if header.data_len() != data.len() {
        return Err(error(&format_args!(
            "the header describes {} bytes, but {} follow it",
            header.data_len(),
            data.len()
        )));
    }
    let mut tensors = Vec::new();
    for (name, info) in header.tensors() {
        let dtype = dtype(info.dtype).ok_or_else(|| {
            error(&format_args!("`{name}` has elements of type {}, which is unsupported", info.dtype))
        })?;
        let (start, end) = info.data_offsets;
        let bytes = data.get(start..end).ok_or_else(|| error(&format_args!("`{name}` ends behind the file")))?;
        let array = array(FORMAT, &name, &info.shape, dtype.decode(bytes))?;
        tensors.push((name, array));
    }
    let names = match header.metadata().as_ref().and_then(|metadata| metadata.get(SOURCE_KEY)) {
        None => Names::Foreign,
        Some(source) if source == NO_SOURCE => Names::Ours(None),
        Some(source) => Names::Ours(Some(source.parse()?)),
    };
    Ok(Contents { tensors, names })
}

fn dtype(dtype: FileDtype) -> Option<Dtype> {
    Some(match dtype {
        FileDtype::BOOL => Dtype::Bool,
        FileDtype::I8 => Dtype::I8,
        FileDtype::U8 => Dtype::U8,
        FileDtype::I16 => Dtype::I16,
        FileDtype::I32 => Dtype::I32,
        FileDtype::I64 => Dtype::I64,
        FileDtype::F16 => Dtype::F16,
        FileDtype::BF16 => Dtype::Bf16,
        FileDtype::F32 => Dtype::F32,
        FileDtype::F64 => Dtype::F64,
        _ => return None,
    })
}
