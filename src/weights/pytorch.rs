//! PyTorch state dicts: which tensors a pickle describes, cut from their storages.
//!
//! A tensor is a view (offset, sizes, strides) of a storage; the storage's bytes are in the container, either a zip
//! archive or, before PyTorch 1.6, the same file behind the pickles. Every number of the view is checked against the
//! storage, and the tensors of a file together may not have more elements than the file has bytes: views may overlap,
//! so a small file could ask for endless memory otherwise.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use ndarray::ArrayD;

use super::dtype::{Dtype, MAX_RANK, array};
use super::pickle::{Global, Id, Pickle, Value, shorten};
use super::zip::Archive;
use crate::{Element, Error, Result};

const FORMAT: &str = "pytorch";

/// `torch.serialization.MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// `torch.serialization.PROTOCOL_VERSION`, the only one there was.
const PROTOCOL: i64 = 1001;

/// Keys under which training scripts put the state dict among other things.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// Longest storage key: PyTorch's are numbers. A key may be named often, and is compared each time.
const MAX_KEY_LEN: usize = 64;

/// A storage a pickle mentions: what its bytes mean and how many elements it has.
type Declared<'a> = BTreeMap<&'a str, (Dtype, usize)>;
/// The bytes of each storage.
type Storages<'a> = BTreeMap<&'a str, &'a [u8]>;

fn error(reason: impl core::fmt::Display) -> Error {
    Error::format(FORMAT, reason)
}

/// Names and arrays of a state dict, in either container.
pub(super) fn read<T: Element>(bytes: &[u8]) -> Result<Vec<(String, ArrayD<T>)>> {
    if bytes.starts_with(b"PK") {
        let archive = Archive::open(bytes)?;
        let pickle = Pickle::read(archive.get("data.pkl")?)?;
        let storages = stored_in_archive(&archive, &declared(&pickle)?)?;
        tensors(&pickle, &storages, bytes.len())
    } else {
        let (pickle, rest) = legacy_head(bytes)?;
        let storages = stored_behind(rest, &declared(&pickle)?)?;
        tensors(&pickle, &storages, bytes.len())
    }
}

/// Every storage the pickle mentions.
fn declared<'a>(pickle: &Pickle<'a>) -> Result<Declared<'a>> {
    let mut declared = Declared::new();
    for value in pickle.values() {
        let Value::Persistent(id) = *value else { continue };
        let (key, dtype, len) = storage(pickle, id)?;
        if *declared.entry(key).or_insert((dtype, len)) != (dtype, len) {
            return Err(error(format_args!("storage `{}` is described in two ways", shorten(key))));
        }
    }
    Ok(declared)
}

/// `("storage", type, key, device, elements)`, and in the older container a sixth item, the storage it is a part of.
fn storage<'a>(pickle: &Pickle<'a>, id: Id) -> Result<(&'a str, Dtype, usize)> {
    let Value::Tuple(items) = pickle.get(id) else { return Err(error("a storage is not named by a tuple")) };
    // A few more than are used: enough to refuse a longer tuple, without a look at all of it each time it is named.
    let items: Vec<_> = items.iter().take(7).map(|&item| pickle.get(item)).collect();
    match *items {
        [
            Value::Text("storage"),
            &Value::Global(Global::Storage(dtype)),
            &Value::Text(key),
            Value::Text(_),
            &Value::Int(len),
        ]
        | [
            Value::Text("storage"),
            &Value::Global(Global::Storage(dtype)),
            &Value::Text(key),
            Value::Text(_),
            &Value::Int(len),
            Value::None,
        ] => {
            if key.len() > MAX_KEY_LEN {
                return Err(error(format_args!("a storage has a key of {} bytes", key.len())));
            }
            Ok((key, dtype, non_negative("the length of a storage", len)?))
        }
        [_, _, _, _, _, _] if !matches!(items[5], Value::None) => {
            Err(error("a storage is a part of another, which is not supported"))
        }
        _ => Err(error("a storage is not described by (\"storage\", type, key, device, elements)")),
    }
}

fn non_negative(what: &str, value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| error(format_args!("{what} is {value}")))
}

fn byte_len((dtype, len): (Dtype, usize)) -> Result<usize> {
    len.checked_mul(dtype.size()).ok_or_else(|| error(format_args!("a storage has {len} elements")))
}

fn stored_in_archive<'a>(archive: &Archive<'a>, declared: &Declared<'a>) -> Result<Storages<'a>> {
    if archive.has("byteorder") && archive.get("byteorder")? != b"little" {
        return Err(error("the file is big-endian, which is not supported"));
    }
    let mut storages = Storages::new();
    for (&key, &storage) in declared {
        let bytes = archive.get(&format!("data/{key}"))?;
        let expected = byte_len(storage)?;
        if bytes.len() != expected {
            let key = shorten(key);
            return Err(error(format_args!("storage `{key}` has {} bytes, expected {expected}", bytes.len())));
        }
        storages.insert(key, bytes);
    }
    Ok(storages)
}

/// Reads the older container's magic number, protocol, description of the machine, and state dict; gives the rest.
fn legacy_head(bytes: &[u8]) -> Result<(Pickle<'_>, &[u8])> {
    let mut rest = bytes;
    let mut next = || {
        let pickle = Pickle::read(rest)?;
        rest = &rest[pickle.len..];
        Ok::<_, Error>(pickle)
    };
    if *next()?.root() != Value::Long(&MAGIC) {
        return Err(error("a pickle without PyTorch's magic number, expected a state dict"));
    }
    if *next()?.root() != Value::Int(PROTOCOL) {
        return Err(error(format_args!("an unknown protocol version, expected {PROTOCOL}")));
    }
    let machine = next()?;
    if find(&machine, machine.root(), "little_endian") != Some(&Value::Bool(true)) {
        return Err(error("the file is not marked little-endian, which is not supported"));
    }
    let state = next()?;
    Ok((state, rest))
}

/// Reads the list of storage keys, then for each its length and bytes.
fn stored_behind<'a>(bytes: &'a [u8], declared: &Declared<'a>) -> Result<Storages<'a>> {
    let keys = Pickle::read(bytes)?;
    let Value::List(items) = keys.root() else { return Err(error("the storage keys are not a list")) };
    let mut rest = &bytes[keys.len..];
    let mut storages = Storages::new();
    for &item in items {
        let &Value::Text(key) = keys.get(item) else { return Err(error("a storage key is not text")) };
        let ends = || error(format_args!("the file ends inside of storage `{}`", shorten(key)));
        let &storage = declared
            .get(key)
            .ok_or_else(|| error(format_args!("storage `{}` is in the file but in no tensor", shorten(key))))?;
        let (&len, behind) = rest.split_first_chunk().ok_or_else(ends)?;
        let len = non_negative("the length of a storage", i64::from_le_bytes(len))?;
        if len != storage.1 {
            let key = shorten(key);
            return Err(error(format_args!("storage `{key}` has {len} elements, expected {}", storage.1)));
        }
        let (bytes, behind) = behind.split_at_checked(byte_len(storage)?).ok_or_else(ends)?;
        if storages.insert(key, bytes).is_some() {
            return Err(error(format_args!("storage `{}` is in the file twice", shorten(key))));
        }
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(error(format_args!("{} bytes follow the last storage", rest.len())));
    }
    Ok(storages)
}

/// The value of a text key in a dict.
fn find<'p, 'a>(pickle: &'p Pickle<'a>, dict: &'p Value<'a>, key: &str) -> Option<&'p Value<'a>> {
    let Value::Dict(items) = dict else { return None };
    items.iter().find(|(name, _)| *pickle.get(*name) == Value::Text(key)).map(|&(_, value)| pickle.get(value))
}

/// The tensors of the state dict, which is the pickle's value or under one of [`WRAPPERS`].
fn tensors<T: Element>(
    pickle: &Pickle<'_>,
    storages: &Storages<'_>,
    file_len: usize,
) -> Result<Vec<(String, ArrayD<T>)>> {
    let root = pickle.root();
    let wrapped = WRAPPERS.iter().find_map(|key| find(pickle, root, key));
    let Value::Dict(items) = wrapped.filter(|value| matches!(value, Value::Dict(_))).unwrap_or(root) else {
        return Err(error("the file holds no dict of tensors"));
    };
    let mut names = HashSet::new();
    let mut elements_left = file_len;
    let mut tensors = Vec::new();
    for &(name, value) in items {
        let &Value::Text(name) = pickle.get(name) else { return Err(error("a tensor's name is not text")) };
        if !names.insert(name) {
            return Err(error(format_args!("`{}` is in the state dict twice", shorten(name))));
        }
        let &Value::Tensor(arguments) = pickle.get(value) else {
            return Err(error(format_args!(
                "`{}` is not a tensor: expected a state dict, alone or under `state_dict` or `model`",
                shorten(name)
            )));
        };
        let view = View::new(pickle, name, arguments)?;
        elements_left = elements_left
            .checked_sub(view.len)
            .ok_or_else(|| error("the tensors have more elements than the file has bytes"))?;
        let bytes =
            storages.get(view.key).ok_or_else(|| error(format_args!("storage `{}` is missing", shorten(view.key))))?;
        let values = view.dtype.decode(&view.elements(bytes));
        tensors.push((name.to_owned(), array(FORMAT, name, &view.sizes, values)?));
    }
    Ok(tensors)
}

/// A tensor's part of a storage; inside of it for sure.
struct View<'a> {
    key: &'a str,
    dtype: Dtype,
    offset: usize,
    sizes: Vec<usize>,
    strides: Vec<usize>,
    /// Number of elements.
    len: usize,
}

impl<'a> View<'a> {
    /// From `_rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks, ..)`.
    fn new(pickle: &Pickle<'a>, name: &str, arguments: Id) -> Result<Self> {
        let name = shorten(name);
        let Value::Tuple(arguments) = pickle.get(arguments) else {
            return Err(error(format_args!("`{name}` is rebuilt from something else than a tuple")));
        };
        let &[id, offset, sizes, strides, ..] = &arguments[..] else {
            return Err(error(format_args!("`{name}` is rebuilt from {} arguments", arguments.len())));
        };
        let (&Value::Persistent(id), &Value::Int(offset)) = (pickle.get(id), pickle.get(offset)) else {
            return Err(error(format_args!("`{name}` is not a view of a storage")));
        };
        let (key, dtype, available) = storage(pickle, id)?;
        let numbers = |id, what| {
            let Value::Tuple(items) = pickle.get(id) else {
                return Err(error(format_args!("the {what}s of `{name}` are not a tuple")));
            };
            if items.len() > MAX_RANK {
                return Err(error(format_args!("`{name}` has {} axes, expected at most {MAX_RANK}", items.len())));
            }
            let number = |&item| match *pickle.get(item) {
                Value::Int(value) => non_negative(&format!("a {what} of `{name}`"), value),
                _ => Err(error(format_args!("a {what} of `{name}` is not a number"))),
            };
            items.iter().map(number).collect::<Result<Vec<_>>>()
        };
        let (sizes, strides) = (numbers(sizes, "size")?, numbers(strides, "stride")?);
        let offset = non_negative(&format!("the offset of `{name}`"), offset)?;
        let outside = || error(format_args!("`{name}` reaches outside of its storage of {available} elements"));
        if sizes.len() != strides.len() {
            return Err(error(format_args!("`{name}` has {} sizes but {} strides", sizes.len(), strides.len())));
        }
        let len = sizes.iter().try_fold(1, |len: usize, &size| len.checked_mul(size)).ok_or_else(outside)?;
        if len > 0 {
            let last = sizes
                .iter()
                .zip(&strides)
                .try_fold(offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
            if last.is_none_or(|last| last >= available) {
                return Err(outside());
            }
        }
        Ok(Self { key, dtype, offset, sizes, strides, len })
    }

    /// Bytes of the elements in row-major order.
    fn elements<'s>(&self, storage: &'s [u8]) -> Cow<'s, [u8]> {
        let size = self.dtype.size();
        if self.is_contiguous() {
            return Cow::Borrowed(&storage[self.offset * size..][..self.len * size]);
        }
        let mut bytes = Vec::with_capacity(self.len * size);
        let mut index = vec![0; self.sizes.len()];
        for _ in 0..self.len {
            let at = self.offset + index.iter().zip(&self.strides).map(|(at, stride)| at * stride).sum::<usize>();
            bytes.extend_from_slice(&storage[at * size..][..size]);
            for (at, &len) in index.iter_mut().zip(&self.sizes).rev() {
                *at += 1;
                if *at < len {
                    break;
                }
                *at = 0;
            }
        }
        Cow::Owned(bytes)
    }

    /// Whether the elements follow each other in row-major order; axes of one element may have any stride. An empty
    /// view says no, as its offset may be anything.
    fn is_contiguous(&self) -> bool {
        let mut next = 1;
        let mut is_next = |(&size, &stride): (&usize, &usize)| {
            let expected = next;
            next *= size;
            size == 1 || stride == expected
        };
        self.len > 0 && self.sizes.iter().zip(&self.strides).rev().all(&mut is_next)
    }
}
