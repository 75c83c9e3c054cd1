//! The zip archive PyTorch writes: entries stored as they are, all in one folder.
//!
//! Nothing is unpacked: an entry is a slice of the file, so no name in it can lead anywhere. The directory is read by
//! the `zip` crate; this file adds what PyTorch's archives promise. Checksums are not compared, as PyTorch itself can
//! be told not to write them.

use std::collections::BTreeMap;
use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::shorten;
use crate::{Error, Result};

const FORMAT: &str = "pytorch zip";

/// Most marks of an archive's end in a file: three belong there (one and two of zip64), as many may be among the
/// weights by chance. For each mark the `zip` crate takes a buffer and reads a directory, until one is right: a file
/// full of marks would cost thousands of times its size.
const MAX_ENDS: usize = 6;

/// Entries by their name inside of the archive's folder.
pub(super) struct Archive<'a> {
    entries: BTreeMap<String, &'a [u8]>,
}

fn error(reason: impl core::fmt::Display) -> Error {
    Error::format(FORMAT, reason)
}

impl<'a> Archive<'a> {
    /// Reads the directory.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        let is_end = |window: &&[u8]| matches!(window, [b'P', b'K', 5 | 6, 6] | [b'P', b'K', 6, 7]);
        if bytes.windows(4).filter(is_end).nth(MAX_ENDS).is_some() {
            return Err(error(format_args!("there are more than {MAX_ENDS} marks of an archive's end")));
        }
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(error)?;
        if archive.has_duplicate_names() {
            return Err(error("two entries have the same name"));
        }
        if archive.file_names_raw().any(|name| name.ends_with(b"/constants.pkl")) {
            return Err(error("a TorchScript archive holds a program: save `model.state_dict()` instead"));
        }
        let mut folder: Option<String> = None;
        let mut entries = BTreeMap::new();
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(error)?;
            let path = entry.name().map_err(error)?.into_owned();
            let shown = shorten(&path);
            let (parent, name) = path
                .split_once('/')
                .ok_or_else(|| error(format_args!("entry `{shown}` is in no folder, unlike all of PyTorch's")))?;
            if folder.get_or_insert_with(|| parent.to_owned()) != parent {
                return Err(error(format_args!("entry `{shown}` is in another folder than those before")));
            }
            if entry.encrypted() {
                return Err(error(format_args!("entry `{shown}` is encrypted")));
            }
            if entry.compression() != CompressionMethod::Stored {
                return Err(error(format_args!("entry `{shown}` is compressed ({})", entry.compression())));
            }
            let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let len = usize::try_from(entry.size()).ok().filter(|_| entry.size() == entry.compressed_size());
            let content = start
                .zip(len)
                .and_then(|(start, len)| bytes.get(start..)?.get(..len))
                .ok_or_else(|| error(format_args!("entry `{shown}` does not lie inside of the file")))?;
            entries.insert(name.to_owned(), content);
        }
        Ok(Self { entries })
    }

    /// Whether there is such an entry.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The bytes of an entry.
    pub(super) fn get(&self, name: &str) -> Result<&'a [u8]> {
        self.entries
            .get(name)
            .copied()
            .ok_or_else(|| error(format_args!("there is no entry `{}` in the archive", shorten(name))))
    }
}
