//! Reading a whole file, with a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// Longest file that is read: 40 times MobileNetV2 1.4 in f32 (24 MB), and small enough for a 32-bit machine.
const MAX_LEN: u64 = 1 << 30;

/// The bytes of a file of at most [`MAX_LEN`]; its size is checked first, and again while reading, since a pipe has
/// no size and a file may grow.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let too_long = |len: u64| {
        Error::format("weight file", format_args!("{} has {len} bytes, expected at most {MAX_LEN}", path.display()))
    };
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let len = file.metadata().map_err(|error| Error::io(path, error))?.len();
    if len > MAX_LEN {
        return Err(too_long(len));
    }
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes)
}
