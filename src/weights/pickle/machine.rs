//! The stack machine of a pickle: its state and the steps opcodes are made of.
//!
//! Values only grow; the stack, the marks and the memo hold indices of them. Each of the four has the same limit.

use std::collections::HashMap;

use super::{Global, Id, Value, shorten};
use crate::{Error, Result};

const FORMAT: &str = "pickle";

/// Most values, stack entries, marks and remembered values: a MobileNet state dict makes under 10 000.
const MAX_VALUES: usize = 1 << 18;

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// The values, and how many bytes were read.
    pub(super) fn finish(self) -> (Vec<Value<'a>>, usize) {
        (self.values, self.at)
    }

    pub(super) fn error(&self, reason: impl core::fmt::Display) -> Error {
        Error::format(FORMAT, format_args!("{reason} (at byte {})", self.at))
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    fn get_mut(&mut self, id: Id) -> &mut Value<'a> {
        &mut self.values[id.0 as usize]
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| {
            self.error(format_args!("the file ends: {len} bytes are expected and {} are left", rest.len()))
        })?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Text up to a line feed.
    pub(super) fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.error("a line does not end"))?;
        let line = core::str::from_utf8(&rest[..len]).map_err(|error| self.error(error))?;
        self.at += len + 1;
        Ok(line)
    }

    fn limit(&self, len: usize, what: &str) -> Result<()> {
        if len < MAX_VALUES { Ok(()) } else { Err(self.error(format_args!("more than {MAX_VALUES} {what}"))) }
    }

    /// Makes a value and pushes it.
    pub(super) fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.limit(self.values.len(), "values")?;
        let id = u32::try_from(self.values.len()).map_err(|error| self.error(error))?;
        self.values.push(value);
        self.push_id(Id(id))
    }

    /// Pushes a value that is already there.
    pub(super) fn push_id(&mut self, id: Id) -> Result<()> {
        self.limit(self.stack.len(), "values on the stack")?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn mark(&mut self) -> Result<()> {
        self.limit(self.marks.len(), "open marks")?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Takes the last `count` values, none of them from below the last mark.
    pub(super) fn pop_last(&mut self, count: usize) -> Result<Vec<Id>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= floor);
        let start = start.ok_or_else(|| self.error("the stack is empty"))?;
        Ok(self.stack.drain(start..).collect())
    }

    pub(super) fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.error("the stack is empty"))
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let start = self.marks.pop().ok_or_else(|| self.error("there is no mark"))?;
        Ok(self.stack.drain(start..).collect())
    }

    /// Puts items into the list below.
    pub(super) fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match self.get_mut(list) {
            Value::List(list) => list.extend(items),
            _ => return Err(self.error("items are appended to something else than a list")),
        }
        Ok(())
    }

    /// Puts keys and values, by turns, into the dict below.
    pub(super) fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks();
        match self.get_mut(dict) {
            Value::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Value::Dict(_) => return Err(self.error("a key has no value")),
            _ => return Err(self.error("items are set in something else than a dict")),
        }
        Ok(())
    }

    /// Pushes a name of the whitelist.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = Global::find(module, name).ok_or_else(|| {
            let (module, name) = (shorten(module), shorten(name));
            self.error(format_args!(
                "global `{module}.{name}` is not allowed: only tensors are read, as `torch.save(model.state_dict(), ..)` writes them"
            ))
        })?;
        self.push(Value::Global(global))
    }

    /// REDUCE: a callable and its arguments become what Python's call would give.
    pub(super) fn call(&mut self) -> Result<()> {
        let (tuple, callable) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = self.get(tuple) else {
            return Err(self.error("a call has no tuple of arguments"));
        };
        match (self.get(callable), &arguments[..]) {
            (Value::Global(Global::OrderedDict), []) => self.push(Value::Dict(Vec::new())),
            (Value::Global(Global::Size), &[size]) => self.push_id(size),
            (Value::Global(Global::RebuildParameter), &[tensor, ..]) => self.push_id(tensor),
            (Value::Global(Global::RebuildTensor), _) => self.push(Value::Tensor(tuple)),
            (Value::Global(global), arguments) => {
                Err(self.error(format_args!("{global:?} is called with {} arguments", arguments.len())))
            }
            _ => Err(self.error("something is called that is not a function")),
        }
    }

    /// BUILD: attributes of the object below, such as a state dict's `_metadata`; none of them matters here.
    pub(super) fn build(&mut self) -> Result<()> {
        self.pop()?;
        let object = self.top()?;
        match self.get(object) {
            Value::Dict(_) => Ok(()),
            _ => Err(self.error("attributes are set on something else than a dict")),
        }
    }

    /// Remembers the top value.
    pub(super) fn put(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.limit(self.memo.len(), "remembered values")?;
        self.memo.insert(index, top);
        Ok(())
    }

    /// Remembers the top value under the next free number.
    pub(super) fn put_next(&mut self) -> Result<()> {
        let index = u32::try_from(self.memo.len()).map_err(|error| self.error(error))?;
        self.put(index)
    }

    /// Pushes a remembered value again.
    pub(super) fn recall(&mut self, index: u32) -> Result<()> {
        let id = self.memo.get(&index).copied();
        let id = id.ok_or_else(|| self.error(format_args!("value {index} is recalled but was never remembered")))?;
        self.push_id(id)
    }
}
