//! A reader of the part of Python's pickle format that state dicts use.
//!
//! A pickle is a program for a stack machine. Python's machine calls any function the program names; this one knows a
//! handful of opcodes and of callables, all of which only build values, and refuses everything else by name.
//! Values live in one list and refer to each other by index: no recursion, however deep they nest, and each costs at
//! least a byte of input, so memory stays in proportion to the file.

mod machine;
mod opcodes;

use machine::Machine;

use super::dtype::Dtype;
use crate::Result;

/// Where a value is in [`Pickle::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A value of the restricted machine; text and numbers borrow from the input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 8 bytes, little-endian two's complement.
    Long(&'a [u8]),
    Float,
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// Something the container keeps outside of the pickle, by the value that names it.
    Persistent(Id),
    /// `_rebuild_tensor_v2` of this tuple of arguments.
    Tensor(Id),
}

/// The names a pickle may mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            // Without the suffix before PyTorch 0.4; the arguments that are read are the same.
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch" | "torch.cuda", _) => Self::Storage(match name {
                "BoolStorage" => Dtype::Bool,
                "CharStorage" => Dtype::I8,
                "ByteStorage" => Dtype::U8,
                "ShortStorage" => Dtype::I16,
                "IntStorage" => Dtype::I32,
                "LongStorage" => Dtype::I64,
                "HalfStorage" => Dtype::F16,
                "BFloat16Storage" => Dtype::Bf16,
                "FloatStorage" => Dtype::F32,
                "DoubleStorage" => Dtype::F64,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// One pickle, read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// Bytes it took; containers put several in a row.
    pub(super) len: usize,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle at the start of `bytes`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut machine = Machine::new(bytes);
        loop {
            if let Some(root) = machine.step()? {
                let (values, len) = machine.finish();
                return Ok(Self { values, root, len });
            }
        }
    }

    /// The value the pickle stands for.
    pub(super) fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    /// Everything the pickle made, used or not.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }
}

/// The start of a name, for messages.
pub(super) fn shorten(name: &str) -> &str {
    /// Longest part of a hostile name worth repeating.
    const MAX: usize = 100;
    name.char_indices().nth(MAX).map_or(name, |(end, _)| &name[..end])
}
