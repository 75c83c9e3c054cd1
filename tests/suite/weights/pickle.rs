//! The restricted pickle reader: each thing Python's would do and this one must not.

use super::files::{PickleBuilder, archive};
use super::{assert_refused, open};

/// Opens an archive with this pickle.
fn in_archive(pickle: PickleBuilder) -> Vec<u8> {
    archive(&pickle.stop(), &[])
}

#[test]
fn empty_state_dict_is_read() {
    assert!(open(&in_archive(PickleBuilder::new().raw("}"))).unwrap().is_empty());
    // As `nn.Module.state_dict()` has it: an OrderedDict with attributes.
    let pickle = PickleBuilder::new().global("collections", "OrderedDict").raw(")R}").text("_metadata").raw("Nsb");
    assert!(open(&in_archive(pickle)).unwrap().is_empty());
}

#[test]
fn functions_outside_of_the_whitelist_are_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("collections", "defaultdict"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("torch.FloatStorage\nc", "os.system"),
    ] {
        let call = PickleBuilder::new().global(module, name).text("id").raw([0x85, b'R']);
        assert_refused(&in_archive(call), "is not allowed");
        assert_refused(&in_archive(PickleBuilder::new().global("os", "system")), "os.system");
        // The form of protocol 4.
        let call = PickleBuilder::new().text(module).text(name).raw([0x93]).text("id").raw([0x85, b'R']);
        assert_refused(&in_archive(call), "is not allowed");
    }
}

#[test]
fn opcodes_outside_of_the_whitelist_are_refused_by_name() {
    for (opcode, name) in [
        (b'i', "INST"),
        (b'o', "OBJ"),
        (0x81, "NEWOBJ"),
        (0x92, "NEWOBJ_EX"),
        (0x82, "EXT"),
        (b'P', "PERSID"),
        (0x8b, "LONG4"),
        (0x8e, "BINBYTES8"),
        (0x96, "BYTEARRAY8"),
        (0xff, "unknown"),
    ] {
        assert_refused(&in_archive(PickleBuilder::new().raw([opcode])), name);
    }
}

#[test]
fn every_opcode_alone_is_an_answer() {
    for opcode in 0..=u8::MAX {
        for arguments in [&[][..], &[0; 9], &[0xff; 9]] {
            let _ = open(&in_archive(PickleBuilder::new().raw([opcode]).raw(arguments)));
        }
    }
}

#[test]
fn protocols_are_checked() {
    for version in [0, 1, 6, 255] {
        assert_refused(&archive(&[0x80, version, b'}', b'.'], &[]), "protocol");
    }
}

#[test]
fn lengths_longer_than_the_file_are_refused() {
    for opcode in ["X", "T"] {
        assert_refused(&in_archive(PickleBuilder::new().raw(opcode).raw(u32::MAX.to_le_bytes())), "the file ends");
    }
    assert_refused(&in_archive(PickleBuilder::new().raw([0x8a, 255])), "the file ends");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    assert_refused(&in_archive(PickleBuilder::new().raw("U\x01").raw([0xff])), "utf-8");
    assert_refused(&in_archive(PickleBuilder::new().raw("c").raw([0xff, b'\n', b'x', b'\n'])), "utf-8");
}

#[test]
fn stack_and_marks_do_not_underflow() {
    for pickle in
        ["", "0", "2", "a", "s", "e", "u", "t", "1", "R", "b", "Q", "(0", "(s", "N(s", "(a", "N(R", "q\0", "NN(b"]
    {
        let reason = super::refused(&in_archive(PickleBuilder::new().raw(pickle)));
        assert!(reason.contains("stack is empty") || reason.contains("no mark"), "{pickle:?}: {reason}");
    }
    let pickle = PickleBuilder::new().raw([b'N', 0x86]);
    assert_refused(&in_archive(pickle), "stack is empty");
}

#[test]
fn memo_references_out_of_range_are_refused() {
    assert_refused(&in_archive(PickleBuilder::new().raw("h\x07")), "value 7");
    assert_refused(&in_archive(PickleBuilder::new().raw("j").raw(u32::MAX.to_le_bytes())), "value 4294967295");
    // Remembering at a huge index costs one entry, not a list of that length.
    let pickle = PickleBuilder::new().raw("}r").raw(u32::MAX.to_le_bytes()).raw("0j").raw(u32::MAX.to_le_bytes());
    assert!(open(&in_archive(pickle)).unwrap().is_empty());
}

#[test]
fn wrong_kinds_are_refused() {
    for (pickle, cause) in [
        ("N)R", "not a function"),
        ("NNR", "no tuple"),
        ("NNa", "than a list"),
        ("NNNs", "than a dict"),
        ("}(Nu", "no value"),
        ("NNb", "attributes"),
        ("NN\u{0}", ""),
    ] {
        assert_refused(&in_archive(PickleBuilder::new().raw(pickle)), cause);
    }
    assert_refused(&in_archive(PickleBuilder::new().raw([b'N', b'N', 0x93])), "named by");
    assert_refused(&in_archive(PickleBuilder::new().global("collections", "OrderedDict").raw("N\u{85}")), "");
    let called = PickleBuilder::new().global("collections", "OrderedDict").raw([b'N', 0x85, b'R']);
    assert_refused(&in_archive(called), "1 arguments");
}

#[test]
fn deep_nesting_is_read_without_recursion() {
    /// Far beyond what one call per level would survive.
    const DEPTH: usize = 200_000;
    let lists = [&b"]"[..], &b"]".repeat(DEPTH), &b"a".repeat(DEPTH)].concat();
    assert_refused(&in_archive(PickleBuilder::new().raw(&lists)), "no dict");
    let tuples = [&b"N"[..], &b"\x85".repeat(DEPTH)].concat();
    assert_refused(&in_archive(PickleBuilder::new().raw(&tuples)), "no dict");
    // A dict that contains itself.
    assert_refused(&in_archive(PickleBuilder::new().raw("}q\0").text("x").raw("h\0s")), "not a tensor");
}

#[test]
fn too_many_values_are_refused() {
    for opcode in [&b"N"[..], b"(", b"}", b"2"] {
        let many = [&b"N"[..], &opcode.repeat((1 << 18) + 1)].concat();
        assert_refused(&in_archive(PickleBuilder::new().raw(&many)), "more than");
    }
    let remembered: Vec<u8> = (0..=1_u32 << 18).flat_map(|index| [&b"r"[..], &index.to_le_bytes()].concat()).collect();
    assert_refused(&in_archive(PickleBuilder::new().raw("N").raw(remembered)), "more than");
}
