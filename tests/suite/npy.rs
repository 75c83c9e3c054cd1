//! Reads `.npy` files of little-endian `f32` in C order: what the reference arrays are.

use std::path::Path;

/// Shape and values.
///
/// # Panics
///
/// If the file is missing or anything else.
pub(crate) fn read(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(bytes.starts_with(b"\x93NUMPY\x01"), "{}: not a version 1 .npy file", path.display());
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).expect("ASCII header");
    for expected in ["'descr': '<f4'", "'fortran_order': False"] {
        assert!(header.contains(expected), "{}: {header} lacks {expected}", path.display());
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
    let shape: Vec<usize> =
        shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().unwrap()).collect();
    let values: Vec<f32> =
        bytes[start..].chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    assert_eq!(values.len(), shape.iter().product::<usize>(), "{}: values of {shape:?}", path.display());
    (shape, values)
}
