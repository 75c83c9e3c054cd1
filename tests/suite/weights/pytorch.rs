//! PyTorch's containers: each field of a tensor, of the older container and of the archive attacked.

use super::files::{
    Entry, GOOD, LEGACY_MAGIC, PickleBuilder, TensorSpec, archive, entry, good_bytes, legacy, legacy_head,
    legacy_machine, legacy_protocol, legacy_with_head, state_pickle, zip,
};
use super::{assert_refused, open};

/// The attack in both containers.
#[track_caller]
fn assert_spec_refused(spec: TensorSpec<'_>, cause: &str) {
    assert_refused(&archive(&state_pickle(&[spec]), &[("0", &good_bytes())]), cause);
    let spec = TensorSpec { is_legacy: true, ..spec };
    assert_refused(&legacy(&state_pickle(&[spec]), &[("0", 6, &good_bytes())]), cause);
}

#[test]
fn tensors_outside_of_their_storage_are_refused() {
    for (offset, sizes, strides) in [
        (1, &[2, 3][..], &[3, 1][..]),
        (i64::MAX, &[2, 3], &[3, 1]),
        (0, &[7], &[1]),
        (0, &[2, 4], &[3, 1]),
        (0, &[2, 3], &[4, 1]),
        (0, &[2, 3], &[i64::MAX, 1]),
        (0, &[2, i64::MAX], &[3, 1]),
        (0, &[i64::MAX, i64::MAX], &[3, 1]),
        (6, &[1], &[1]),
        (6, &[], &[]),
    ] {
        assert_spec_refused(TensorSpec { offset, sizes, strides, ..GOOD }, "outside of its storage");
    }
}

#[test]
fn negative_numbers_are_refused() {
    assert_spec_refused(TensorSpec { offset: -1, ..GOOD }, "offset");
    assert_spec_refused(TensorSpec { sizes: &[-2, 3], ..GOOD }, "size");
    assert_spec_refused(TensorSpec { strides: &[3, i64::MIN], ..GOOD }, "stride");
    assert_spec_refused(TensorSpec { elements: -6, ..GOOD }, "length of a storage");
}

#[test]
fn shapes_that_contradict_themselves_are_refused() {
    assert_spec_refused(TensorSpec { strides: &[1], ..GOOD }, "strides");
    assert_spec_refused(TensorSpec { sizes: &[1; 9], strides: &[1; 9], ..GOOD }, "axes");
}

#[test]
fn storages_of_another_length_are_refused() {
    for elements in [0, 5, 7, 1 << 40, i64::MAX] {
        let spec = TensorSpec { elements, sizes: &[], strides: &[], ..GOOD };
        let bytes = archive(&state_pickle(&[spec]), &[("0", &good_bytes())]);
        assert!(matches!(open(&bytes), Err(mobilenet::Error::Format { .. })), "{elements}");
        let state = state_pickle(&[TensorSpec { is_legacy: true, ..spec }]);
        for written in [6, elements] {
            let bytes = legacy(&state, &[("0", written, &good_bytes())]);
            assert!(matches!(open(&bytes), Err(mobilenet::Error::Format { .. })), "{elements} {written}");
        }
    }
    let state = state_pickle(&[TensorSpec { is_legacy: true, ..GOOD }]);
    assert_refused(&legacy(&state, &[("0", -6, &good_bytes())]), "length of a storage");
}

#[test]
fn storage_types_are_checked() {
    assert_spec_refused(TensorSpec { storage_type: "QUInt8Storage", ..GOOD }, "torch.QUInt8Storage");
    // Another size of element is another number of bytes.
    assert_refused(
        &archive(&state_pickle(&[TensorSpec { storage_type: "DoubleStorage", ..GOOD }]), &[("0", &good_bytes())]),
        "24 bytes, expected 48",
    );
    let halves = [GOOD, TensorSpec { name: "other", storage_type: "HalfStorage", ..GOOD }];
    assert_refused(&archive(&state_pickle(&halves), &[("0", &good_bytes())]), "two ways");
}

#[test]
fn missing_and_doubled_storages_are_refused() {
    assert_refused(&archive(&state_pickle(&[GOOD]), &[]), "data/0");
    assert_refused(&archive(&state_pickle(&[TensorSpec { key: "../../etc/passwd", ..GOOD }]), &[]), "no entry");
    assert_refused(&archive(&state_pickle(&[TensorSpec { key: &"9".repeat(65), ..GOOD }]), &[]), "key");
    let state = state_pickle(&[TensorSpec { is_legacy: true, ..GOOD }]);
    assert_refused(&legacy(&state, &[]), "missing");
    assert_refused(&legacy(&state, &[("0", 6, &good_bytes()), ("0", 6, &good_bytes())]), "twice");
    assert_refused(&legacy(&state, &[("1", 6, &good_bytes())]), "in no tensor");
}

#[test]
fn doubled_names_are_refused() {
    assert_spec_refused_twice(GOOD, "twice");
}

#[track_caller]
fn assert_spec_refused_twice(spec: TensorSpec<'_>, cause: &str) {
    assert_refused(&archive(&state_pickle(&[spec, spec]), &[("0", &good_bytes())]), cause);
}

#[test]
fn views_that_multiply_a_small_file_are_refused() {
    let spec = TensorSpec { sizes: &[1 << 40, 6], strides: &[0, 1], ..GOOD };
    assert_spec_refused(spec, "more elements than the file has bytes");
    let names: Vec<_> = (0..1000).map(|index| index.to_string()).collect();
    let specs: Vec<_> =
        names.iter().map(|name| TensorSpec { name, sizes: &[6, 1000], strides: &[1, 0], ..GOOD }).collect();
    assert_refused(&archive(&state_pickle(&specs), &[("0", &good_bytes())]), "more elements than the file has bytes");
}

#[test]
fn strides_are_followed() {
    let transposed = TensorSpec { sizes: &[3, 2], strides: &[1, 3], ..GOOD };
    let every_second = TensorSpec { name: "a", offset: 1, sizes: &[3], strides: &[2], ..GOOD };
    let repeated = TensorSpec { name: "b", offset: 5, sizes: &[2, 2], strides: &[0, 0], ..GOOD };
    let scalar = TensorSpec { name: "c", offset: 2, sizes: &[], strides: &[], ..GOOD };
    let empty = TensorSpec { name: "d", offset: 99, sizes: &[0, 3], strides: &[3, 1], ..GOOD };
    let any_stride_of_one = TensorSpec { name: "e", offset: 3, sizes: &[1, 3], strides: &[77, 1], ..GOOD };
    let specs = [transposed, every_second, repeated, scalar, empty, any_stride_of_one];
    let state = open(&archive(&state_pickle(&specs), &[("0", &good_bytes())])).unwrap();
    let values = |name: &str| state.get(name).unwrap().iter().copied().collect::<Vec<_>>();
    assert_eq!(state.get("features.0.weight").unwrap().shape(), [2, 3]);
    assert_eq!(values("features.0.weight"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(values("a"), [2.0, 4.0, 6.0]);
    assert_eq!(values("b"), [6.0; 4]);
    assert_eq!(values("c"), [3.0]);
    assert_eq!(state.get("d").unwrap().shape(), [0, 3]);
    assert_eq!(values("e"), [4.0, 5.0, 6.0]);
}

#[test]
fn wrapped_and_parallel_state_dicts_are_found() {
    for wrapper in ["state_dict", "model"] {
        let inner = TensorSpec { name: "module.features.0.0.weight", ..GOOD };
        let pickle = PickleBuilder::new().raw("}(").text("epoch").int(3).text(wrapper).raw("}(");
        let pickle = pickle.text(inner.name).tensor(&inner).raw("uu").stop();
        let state = open(&archive(&pickle, &[("0", &good_bytes())])).unwrap();
        assert!(state.get("features.0.weight").is_some(), "{wrapper}");
    }
    let number = PickleBuilder::new().raw("}").text("epoch").int(3).raw("s").stop();
    assert_refused(&archive(&number, &[]), "epoch");
    assert_refused(&archive(&PickleBuilder::new().raw("}K\x01K\x02s").stop(), &[]), "not text");
}

#[test]
fn parameters_are_tensors() {
    let pickle = PickleBuilder::new().raw("}").text(GOOD.name).global("torch._utils", "_rebuild_parameter").raw("(");
    let pickle = pickle.tensor(&GOOD).raw([0x88]).global("collections", "OrderedDict").raw(")RtRs").stop();
    assert_eq!(open(&archive(&pickle, &[("0", &good_bytes())])).unwrap().len(), 1);
}

/// PyTorch before 0.4 called another function, with the first four arguments.
#[test]
fn tensors_of_the_oldest_versions_are_read() {
    let pickle = PickleBuilder::new().raw("}").text(GOOD.name).global("torch._utils", "_rebuild_tensor").raw("((");
    let pickle = pickle.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(6).raw("NtQ");
    let pickle = pickle.int(0).ints(GOOD.sizes).ints(GOOD.strides).raw("tRs").stop();
    let state = open(&legacy(&pickle, &[("0", 6, &good_bytes())])).unwrap();
    assert_eq!(state.get("features.0.weight").unwrap().shape(), [3, 2]);
}

#[test]
fn tensors_of_wrong_parts_are_refused() {
    let rebuild = || PickleBuilder::new().raw("}").text("x").global("torch._utils", "_rebuild_tensor_v2");
    for (arguments, cause) in [
        (&b")R"[..], "0 arguments"),
        (b"(NNNNtR", "not a view"),
        (b"(NQK\0NNtR", "tuple"),
        (b"()QK\0NNtR", "not described"),
    ] {
        assert_refused(&archive(&rebuild().raw(arguments).raw("s").stop(), &[]), cause);
    }
    let pid = |pickle: PickleBuilder| {
        pickle.raw("((").text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(6)
    };
    let good = || pid(rebuild()).raw("tQ");
    let with = |pickle: PickleBuilder| archive(&pickle.raw("tRs").stop(), &[("0", &good_bytes())]);
    assert_refused(&with(pid(rebuild()).raw("(tt").raw("QK\0))")), "part of another");
    assert_refused(&with(good().raw("K\0N)")), "sizes");
    assert_refused(&with(good().raw("K\0)N")), "strides");
    assert_refused(&with(good().raw("K\0(Nt)")), "not a number");
    assert_refused(&with(good().raw("N))")), "not a view");
}

#[test]
fn legacy_head_is_checked() {
    let state = state_pickle(&[TensorSpec { is_legacy: true, ..GOOD }]);
    let with_head = |head: &[&[u8]]| legacy_with_head(&head.concat(), &state, &[("0", 6, &good_bytes())]);
    let (protocol, machine) = (legacy_protocol(1001), legacy_machine(true));
    open(&with_head(&[LEGACY_MAGIC, &protocol, &machine])).unwrap();
    let mut magic = LEGACY_MAGIC.to_vec();
    magic[5] ^= 1;
    assert_refused(&with_head(&[&magic, &protocol, &machine]), "magic");
    assert_refused(&with_head(&[&legacy_protocol(1), &protocol, &machine]), "magic");
    assert_refused(&with_head(&[LEGACY_MAGIC, &legacy_protocol(1002), &machine]), "protocol");
    assert_refused(&with_head(&[LEGACY_MAGIC, &protocol, &legacy_machine(false)]), "little-endian");
    assert_refused(&with_head(&[LEGACY_MAGIC, &protocol, &protocol]), "little-endian");
}

#[test]
fn legacy_keys_are_checked() {
    let state = state_pickle(&[TensorSpec { is_legacy: true, ..GOOD }]);
    let keys = |pickle: &str| [legacy_head(), state.clone(), PickleBuilder::new().raw(pickle).stop()].concat();
    assert_refused(&keys("N"), "not a list");
    assert_refused(&keys("]Na"), "not text");
}

/// The entries of a good archive.
fn entries() -> Vec<Entry> {
    vec![entry("net/data.pkl", &state_pickle(&[GOOD])), entry("net/data/0", &good_bytes())]
}

#[test]
fn entries_that_are_not_stored_plainly_are_refused() {
    open(&zip(&entries())).unwrap();
    for index in 0..2 {
        let with = |change: &dyn Fn(&mut Entry)| {
            let mut entries = entries();
            change(&mut entries[index]);
            zip(&entries)
        };
        assert_refused(&with(&|entry| entry.method = 8), "compressed");
        assert_refused(&with(&|entry| entry.method = 999), "compressed");
        assert_refused(&with(&|entry| entry.flags = 1), "encrypted");
        assert_refused(&with(&|entry| entry.claimed = Some(1 << 30)), "inside of the file");
    }
}

#[test]
fn folders_of_entries_are_checked() {
    let renamed = |names: [&str; 2]| {
        let mut entries = entries();
        for (entry, name) in entries.iter_mut().zip(names) {
            entry.name = name.into();
        }
        zip(&entries)
    };
    assert_refused(&renamed(["data.pkl", "data/0"]), "no folder");
    assert_refused(&renamed(["net/data.pkl", "other/data/0"]), "another folder");
    assert_refused(&renamed(["net/state.pkl", "net/data/0"]), "data.pkl");
    assert_refused(&renamed(["net/data.pkl", "net/data.pkl"]), "same name");
    assert_refused(&renamed(["net/constants.pkl", "net/data/0"]), "TorchScript");
    // Names are looked up, never followed: this reads like any other folder.
    open(&renamed(["../data.pkl", "../data/0"])).unwrap();
}

#[test]
fn big_endian_archives_are_refused() {
    let entries = [entries(), vec![entry("net/byteorder", b"big")]].concat();
    assert_refused(&zip(&entries), "big-endian");
}

#[test]
fn archive_that_lies_about_its_directory_is_refused() {
    let good = zip(&entries());
    let end = good.len() - 22;
    // The number of entries, and where the first one is.
    for field in [10, 16] {
        for lie in [0xffff_u16, 0x7fff, 3] {
            let mut bytes = good.clone();
            bytes[end + field..][..2].copy_from_slice(&lie.to_le_bytes());
            assert!(matches!(open(&bytes), Err(mobilenet::Error::Format { .. })), "field {field}, {lie}");
        }
    }
}

/// Each mark of an end may lead to a directory, which is read until it proves wrong.
#[test]
fn archive_with_many_ends_is_refused() {
    let good = zip(&entries());
    let end = &good[good.len() - 22..];
    open(&[&good[..good.len() - 22], b"PK\x06\x06PK\x06\x07PK\x05\x06", end].concat()).unwrap();
    for mark in [b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"] {
        assert_refused(&[&good[..good.len() - 22], &mark.repeat(6), end].concat(), "marks of an archive's end");
    }
}
