//! The opcodes a state dict may use, and what each does.
//!
//! Letters and numbers are those of Python's `pickletools`; an opcode that is not here is refused.

use super::machine::Machine;
use super::{Id, Value};
use crate::Result;

impl<'a> Machine<'a> {
    /// Runs one opcode; the last one gives the result.
    pub(super) fn step(&mut self) -> Result<Option<Id>> {
        let [opcode] = self.array()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO.
            0x80 => {
                let [version] = self.array()?;
                if !(2..=5).contains(&version) {
                    return Err(self.error(format_args!("protocol {version}, expected 2 to 5")));
                }
            }
            // FRAME: a length that only helps readers of streams.
            0x95 => _ = self.array::<8>()?,
            // MARK, POP, POP_MARK, DUP.
            b'(' => self.mark()?,
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_to_mark()?,
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            _ => self.literal(opcode)?,
        }
        Ok(None)
    }

    /// Opcodes that push a value written in the pickle.
    fn literal(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => {
                let [value] = self.array()?;
                Value::Int(value.into())
            }
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => self.long()?,
            b'G' => {
                self.array::<8>()?;
                Value::Float
            }
            0x8c | b'U' => {
                let [len] = self.array()?;
                self.text(len.into())?
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?
            }
            _ => return self.container(opcode),
        };
        self.push(value)
    }

    /// LONG1: a length byte, then a little-endian two's complement number.
    fn long(&mut self) -> Result<Value<'a>> {
        let [len] = self.array()?;
        let digits = self.take(len.into())?;
        let mut wide = [if digits.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 }; 8];
        Ok(match wide.get_mut(..digits.len()) {
            Some(low) => {
                low.copy_from_slice(digits);
                Value::Int(i64::from_le_bytes(wide))
            }
            None => Value::Long(digits),
        })
    }

    fn text(&mut self, len: usize) -> Result<Value<'a>> {
        core::str::from_utf8(self.take(len)?).map(Value::Text).map_err(|error| self.error(error))
    }

    /// Opcodes that make tuples, lists and dicts.
    fn container(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_last(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items))
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items))
            }
            b'a' => {
                let items = self.pop_last(1)?;
                self.append(items)
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(&items)
            }
            b's' => {
                let items = self.pop_last(2)?;
                self.set(&items)
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)
            }
            _ => self.reference(opcode),
        }
    }

    /// Opcodes that remember, recall, name and call; all others are refused here.
    fn reference(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'q' => {
                let [index] = self.array()?;
                self.put(index.into())
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index)
            }
            0x94 => self.put_next(),
            b'h' => {
                let [index] = self.array()?;
                self.recall(index.into())
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.get(module), self.get(name)) {
                    (&Value::Text(module), &Value::Text(name)) => self.global(module, name),
                    _ => Err(self.error("a global is named by something else than text")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
            b'R' => self.call(),
            b'b' => self.build(),
            _ => {
                let name = name_of_refused(opcode);
                Err(self.error(format_args!("opcode {opcode:#04x} ({name}) is not allowed in a state dict")))
            }
        }
    }
}

/// What `pickletools` calls the opcodes that are refused.
fn name_of_refused(opcode: u8) -> &'static str {
    match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'I' => "INT",
        b'L' => "LONG",
        0x8b => "LONG4",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'g' => "GET",
        b'p' => "PUT",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}
