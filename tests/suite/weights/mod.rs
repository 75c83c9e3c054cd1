//! Weight files: what is read, what is written, and that nothing a file says is believed.
#![cfg(all(feature = "pytorch", feature = "safetensors"))]
#![expect(clippy::float_cmp, reason = "what is stored is read back bit for bit")]

mod files;
mod names;
mod pickle;
mod pytorch;
mod round_trip;
mod safetensors;

use mobilenet::layers::StateDict;
use mobilenet::{Error, WeightSource};
use proptest::prelude::*;

fn open(bytes: &[u8]) -> mobilenet::Result<StateDict<f32>> {
    StateDict::from_bytes(bytes, WeightSource::Torchvision)
}

/// The reason a malformed file is refused with.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    match open(bytes) {
        Err(Error::Format { reason, .. }) => reason,
        other => panic!("expected a format error, found {other:?}"),
    }
}

/// Asserts that a malformed file is refused for the field that was attacked.
#[track_caller]
fn assert_refused(bytes: &[u8], cause: &str) {
    let reason = refused(bytes);
    assert!(reason.contains(cause), "`{reason}` does not name `{cause}`");
}

#[test]
fn each_format_gives_the_same_array() {
    for (format, bytes) in files::all_good() {
        let state = open(&bytes).unwrap();
        let array = state.get("features.0.weight").unwrap_or_else(|| panic!("{format} lacks the array"));
        // [out, in] became [in, out].
        assert_eq!(array.shape(), [3, 2], "{format}");
        assert_eq!(array.as_slice().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0], "{format}");
        assert_eq!(state.source(), Some(WeightSource::Torchvision));
    }
}

#[test]
fn each_format_is_refused_when_cut_anywhere() {
    for (format, bytes) in files::all_good() {
        for len in 0..bytes.len() {
            assert!(matches!(open(&bytes[..len]), Err(Error::Format { .. })), "{format} cut to {len} bytes");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    // An archive may have them: it is found from its end.
    for (format, mut bytes) in files::all_good().into_iter().filter(|(format, _)| *format != "zip") {
        bytes.push(0);
        assert!(matches!(open(&bytes), Err(Error::Format { .. })), "{format}");
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    assert_refused(b"\x89HDF\r\n\x1a\n rest", "HDF5");
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert_refused(&tar, "tar");
    assert_refused(b"", "neither");
    assert_refused(&[0xff; 64], "neither");
}

#[test]
fn header_length_that_spells_pk_is_still_safetensors() {
    // 0x4b50 bytes of header: the file starts with "PK".
    let header = files::good_safetensors()[8..][..files::good_safetensors().len() - 8 - 24].to_vec();
    let padded = [&header[..], &vec![b' '; 0x4b50 - header.len()]].concat();
    let bytes = files::safetensors(padded, &files::good_bytes());
    assert!(bytes.starts_with(b"PK"));
    open(&bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// Any answer will do, but it has to be an answer.
    #[test]
    fn damaged_files_never_panic(
        format in 0..3_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = files::all_good()[format].1.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for source in WeightSource::ALL {
            let _ = StateDict::<f32>::from_bytes(&bytes, source);
        }
    }

    #[test]
    fn random_opcodes_never_panic(opcodes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pickle = [&[0x80, 2], &opcodes[..]].concat();
        let _ = open(&files::archive(&pickle, &[]));
        let _ = open(&files::legacy(&pickle, &[]));
    }

    /// Opcodes of the whitelist only, so that programs get far.
    #[test]
    fn random_whitelisted_opcodes_never_panic(
        opcodes in prop::collection::vec(prop::sample::select(&b"NK\x01\x88\x89(tt)]}aesubRQq\x00h\x00102\x85\x86\x87\x94\x93ld"[..]), 0..200),
    ) {
        let pickle = [&[0x80, 2], &opcodes[..], b"."].concat();
        let _ = open(&files::archive(&pickle, &[]));
    }
}
