//! safetensors: each field of the header attacked.

use mobilenet::Error;
use mobilenet::layers::StateDict;

use super::files::{good_bytes, safetensors};
use super::{assert_refused, open, refused};

fn header(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn with(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    safetensors(header(dtype, shape, offsets), &good_bytes())
}

#[test]
fn header_length_is_checked() {
    let mut bytes = with("F32", "[2,3]", "[0,24]");
    open(&bytes).unwrap();
    for lie in [0, 1, 200, 1 << 31, 1 << 40, u64::MAX] {
        bytes[..8].copy_from_slice(&u64::to_le_bytes(lie));
        refused(&bytes);
    }
}

#[test]
fn header_that_is_too_long_is_refused() {
    let padded = |len: usize| {
        let text = header("F32", "[2,3]", "[0,24]");
        safetensors(format!("{text}{}", " ".repeat(len - text.len())), &good_bytes())
    };
    open(&padded(1 << 20)).unwrap();
    assert_refused(&padded((1 << 20) + 1), "at most 1048576");
}

#[test]
fn header_that_is_not_json_is_refused() {
    for text in ["{", "{}}", "{\"x\":1}", "{\"x\":[]}", "[]", "{\"x\":null}", "{'x':{}}"] {
        refused(&safetensors(text, &[]));
    }
    refused(&safetensors(b"{\"\xff\":{}}", &[]));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&safetensors(deep, &[]));
}

#[test]
fn offsets_are_checked() {
    for offsets in ["[0,20]", "[4,28]", "[0,28]", "[24,0]", "[-1,24]", "[0,18446744073709551615]", "[0]", "[0,24,24]"] {
        refused(&with("F32", "[2,3]", offsets));
    }
    // Two arrays over the same bytes, and a hole between two.
    for second in ["[0,24]", "[8,20]", "[16,28]", "[12,28]"] {
        let text = format!(
            r#"{{"x":{{"dtype":"F32","shape":[3],"data_offsets":[0,12]}},"y":{{"dtype":"F32","shape":[3],"data_offsets":{second}}}}}"#
        );
        refused(&safetensors(text, &good_bytes()));
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    for shape in ["[4294967296,4294967296]", "[18446744073709551615]", "[0,18446744073709551615,2]", "[-1]", "[1.5]"] {
        refused(&with("F32", shape, "[0,24]"));
    }
    // Nine arrays of 2^61 - 1 bytes: each fits 64 bits, their sum does not.
    let len = (1_u64 << 61) - 1;
    let arrays = (0..8).map(|index| {
        format!(r#""x{index}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{},{}]}}"#, index * len, (index + 1) * len)
    });
    let rest = u64::MAX - 8 * len;
    let last = format!(r#""y":{{"dtype":"U8","shape":[{rest}],"data_offsets":[{},{}]}}"#, 8 * len, u64::MAX);
    let text = format!("{{{},{last}}}", arrays.collect::<Vec<_>>().join(","));
    assert_refused(&safetensors(text, &[]), "describes");
}

#[test]
fn element_types_are_checked() {
    for dtype in ["F32x", "", "f32", "Q8"] {
        refused(&with(dtype, "[2,3]", "[0,24]"));
    }
    refused(&with("F64", "[2,3]", "[0,24]"));
    assert_refused(&with("U32", "[2,3]", "[0,24]"), "U32");
    assert_refused(&with("F8_E4M3", "[24]", "[0,24]"), "F8_E4M3");
}

#[test]
fn many_axes_are_refused() {
    open(&with("F32", "[1,1,1,1,1,1,2,3]", "[0,24]")).unwrap();
    assert_refused(&with("F32", "[1,1,1,1,1,1,1,2,3]", "[0,24]"), "9 axes");
}

#[test]
fn zero_sizes_are_read() {
    let state = open(&safetensors(header("F32", "[0,3]", "[0,0]"), &[])).unwrap();
    assert_eq!(state.get("x").unwrap().shape(), [0, 3]);
}

#[test]
fn half_and_integer_arrays_widen() {
    // 1, -2, the smallest subnormal 2^-24, the largest finite 65504.
    let f16 = [0x3c00_u16, 0xc000, 0x0001, 0x7bff].map(u16::to_le_bytes).concat();
    let state = open(&safetensors(header("F16", "[4]", "[0,8]"), &f16)).unwrap();
    assert_eq!(state.get("x").unwrap().as_slice().unwrap(), [1.0, -2.0, 2.0_f32.powi(-24), 65504.0]);
    let bf16 = [0x3f80_u16, 0xc000, 0x0001].map(u16::to_le_bytes).concat();
    let state = open(&safetensors(header("BF16", "[3]", "[0,6]"), &bf16)).unwrap();
    assert_eq!(state.get("x").unwrap().as_slice().unwrap(), [1.0, -2.0, f32::from_bits(1 << 16)]);
    let i64s = [3_i64, -4].map(i64::to_le_bytes).concat();
    let state = open(&safetensors(header("I64", "[2]", "[0,16]"), &i64s)).unwrap();
    assert_eq!(state.get("x").unwrap().as_slice().unwrap(), [3.0, -4.0]);
}

#[test]
fn unknown_source_in_a_marked_file_is_refused() {
    let bytes = safetensors(r#"{"__metadata__":{"mobilenet.source":"caffe"}}"#, &[]);
    assert!(matches!(StateDict::<f32>::from_bytes(&bytes, None), Err(Error::Invalid { .. })));
}
