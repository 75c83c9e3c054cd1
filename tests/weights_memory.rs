//! Memory that reading a weight file takes, counted over all allocations of the process.
#![cfg(all(feature = "pytorch", feature = "safetensors"))]

#[path = "suite/weights/files.rs"]
mod files;

use std::alloc::System;

use files::{GOOD, PickleBuilder, TensorSpec, archive, entry, good_bytes, legacy, safetensors, state_pickle, zip};
use mobilenet::WeightSource;
use mobilenet::layers::StateDict;
use proptest::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated per byte of file, at most. A one-byte opcode makes a value of 32 bytes; growing vectors allocate
/// their final size twice; the maps of names and values add as much again.
const PER_BYTE: usize = 128;
/// Bytes that any file may take: error messages, and the directory reader's buffers (about 100 KB for each mark of an
/// end).
const BASE: usize = 1 << 20;

fn assert_bounded(name: &str, bytes: &[u8]) {
    let region = Region::new(ALLOCATOR);
    let result = StateDict::<f64>::from_bytes(bytes, WeightSource::Torchvision);
    let used = region.change();
    let allocated = used.bytes_allocated + usize::try_from(used.bytes_reallocated).unwrap_or(0);
    let limit = BASE + PER_BYTE * bytes.len();
    assert!(allocated <= limit, "{name}: {allocated} bytes for a file of {} ({result:?})", bytes.len());
}

/// One test: the counters are the whole process's.
#[test]
fn reading_takes_a_multiple_of_the_file() {
    for (name, bytes) in files::all_good() {
        assert_bounded(name, &bytes);
    }
    lies();
    amplifications();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    });
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    runner
        .run(&(0..3_usize, damage), |(format, damage)| {
            let (name, mut bytes) = files::all_good()[format].clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            assert_bounded(name, &bytes);
            Ok(())
        })
        .unwrap();
}

/// Sizes that are not there.
fn lies() {
    assert_bounded("header length", &u64::to_le_bytes(90_000_000).iter().copied().chain(*b"{").collect::<Vec<_>>());
    let header = r#"{"x":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#;
    assert_bounded("array of a tebibyte", &safetensors(header, &[]));
    let text = PickleBuilder::new().raw("X").raw(u32::MAX.to_le_bytes()).stop();
    assert_bounded("text of 4 GiB", &archive(&text, &[]));
    let huge = TensorSpec { elements: 1 << 40, sizes: &[1 << 40], strides: &[1], ..GOOD };
    assert_bounded("storage of a tebibyte", &archive(&state_pickle(&[huge]), &[("0", &good_bytes())]));
    let huge = TensorSpec { is_legacy: true, ..huge };
    assert_bounded("older storage of a tebibyte", &legacy(&state_pickle(&[huge]), &[("0", 1 << 40, &good_bytes())]));
    let mut lying = entry("net/data.pkl", b"\x80\x02}.");
    lying.claimed = Some(u32::MAX - 1);
    assert_bounded("entry of 4 GiB", &zip(&[lying]));
    let mut many = zip(&[entry("net/data.pkl", b"\x80\x02}.")]);
    let count = many.len() - 22 + 8;
    many[count..][..4].copy_from_slice(&[0xfe, 0xff, 0xfe, 0xff]);
    assert_bounded("65534 entries", &many);
}

/// Small programs that ask for much.
fn amplifications() {
    let expanded = TensorSpec { sizes: &[1 << 30, 6], strides: &[0, 1], ..GOOD };
    assert_bounded("repeated view", &archive(&state_pickle(&[expanded]), &[("0", &good_bytes())]));
    // One tuple of many arguments, called many times.
    let call =
        PickleBuilder::new().raw("(").raw(b"N".repeat(1000)).raw("tq\0").global("torch._utils", "_rebuild_tensor_v2");
    assert_bounded("long calls", &archive(&call.raw("q\x01").raw(b"h\x01h\0R".repeat(1000)).stop(), &[]));
    // One long tuple of sizes, used by many tensors.
    let sizes = PickleBuilder::new().raw("(").raw(b"K\x01".repeat(1000)).raw("tq\0");
    let persistent =
        sizes.raw("((").text("storage").global("torch", "FloatStorage").text("0").text("c").int(6).raw("tQq\x01");
    let rebuild = persistent.global("torch._utils", "_rebuild_tensor_v2").raw("q\x02}(");
    let many = (0..1000).fold(rebuild, |pickle, index| pickle.text(&index.to_string()).raw("h\x02(h\x01K\0h\0h\0tR"));
    assert_bounded("long shapes", &archive(&many.raw("u").stop(), &[("0", &good_bytes())]));
    // Directories that are wrong at their end, each read for the mark of an end that leads to it.
    let entries: Vec<_> = (0..1000).map(|index| entry(&format!("n/{index}"), b"")).collect();
    let mut ends = zip(&entries);
    let end = ends.split_off(ends.len() - 22);
    let damaged = ends.len() - 48;
    ends[damaged..].fill(0);
    assert_bounded("wrong directories", &[ends, end.repeat(6)].concat());
    // Nothing but marks.
    let mark = b"PK\x05\x06";
    assert_bounded("some marks of an end", &mark.repeat(6));
    assert_bounded("many marks of an end", &mark.repeat(10_000));
    let mut end = zip(&[]);
    end[20..].fill(0xff);
    assert_bounded("ends with long comments", &end.repeat(6));
    // A high stack, then many empty tuples from its top.
    let tall = PickleBuilder::new().raw(b"N".repeat(1000)).raw(b"(t".repeat(1000)).stop();
    assert_bounded("tall stack", &archive(&tall, &[]));
    let nested = PickleBuilder::new().raw(b"]".repeat(100_000)).stop();
    assert_bounded("many lists", &archive(&nested, &[]));
    let arrays: Vec<_> =
        (0..1000).map(|index| format!(r#""{index}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    assert_bounded("many empty arrays", &safetensors(format!("{{{}}}", arrays.join(",")), &[]));
}
