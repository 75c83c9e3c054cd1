//! What several test files share: reproducible values. See `tests/golden/formula.py` for the other side.
#![allow(dead_code, reason = "each test program uses its part")]

/// Element `index` of the tensor `name`, in `[0, 1)`, exact in `f32`.
pub(crate) fn uniform(name: &str, index: usize) -> f64 {
    let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, hash);
    let mut z = hash.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
}

/// `count` values of the tensor `name`, in `[-1, 1)`.
#[expect(clippy::cast_possible_truncation, reason = "the values are exact in f32")]
pub(crate) fn values(name: &str, count: usize) -> Vec<f32> {
    (0..count).map(|index| (2.0 * uniform(name, index) - 1.0) as f32).collect()
}

/// The SIMD levels to test: all this machine has, or the one that `MOBILENET_TEST_LEVEL` names, which it must have.
pub(crate) fn levels() -> Vec<mobilenet::SimdLevel> {
    let Ok(name) = std::env::var("MOBILENET_TEST_LEVEL") else { return mobilenet::SimdLevel::available().collect() };
    let level: mobilenet::SimdLevel = name.parse().unwrap();
    assert!(level.is_available(), "this machine cannot run {level}");
    vec![level]
}
