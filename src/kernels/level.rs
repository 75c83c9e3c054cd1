//! SIMD levels by name.
//!
//! A level is a value: every kernel is told which one to use, so tests and benches reach all of them.

use core::fmt;
use core::str::FromStr;

use fearless_simd::Level;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SimdLevel {
    /// No SIMD types; whatever the compiler vectorises for the target's baseline.
    Scalar,
    /// x86 SSE2: 4 floats, no fused multiply-add.
    Sse2,
    /// x86-64-v2: 4 floats, no fused multiply-add.
    Sse42,
    /// x86-64-v3: 8 floats, fused multiply-add, 16 registers.
    Avx2,
    /// AVX-512 of Ice Lake and later (with VNNI): 16 floats, 32 registers.
    Avx512,
    /// AArch64: 4 floats, fused multiply-add, 32 registers.
    Neon,
    /// WebAssembly `simd128`: 4 floats.
    WasmSimd128,
}

impl SimdLevel {
    const ALL: [Self; 7] =
        [Self::Scalar, Self::Sse2, Self::Sse42, Self::Avx2, Self::Avx512, Self::Neon, Self::WasmSimd128];

    /// The best level of this machine; without the `std` feature, of the compilation target.
    #[must_use]
    pub fn detect() -> Self {
        Self::of(Level::try_detect().unwrap_or_else(Level::baseline))
    }

    /// Every level this machine can run, plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.token().is_some())
    }

    /// Its name in kernel ids and on command lines: `scalar`, `sse2`, `sse4.2`, `avx2`, `avx512`, `neon`, `simd128`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse2 => "sse2",
            Self::Sse42 => "sse4.2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::WasmSimd128 => "simd128",
        }
    }

    /// Whether this machine can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        self.token().is_some()
    }

    fn of(level: Level) -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        match level {
            Level::Avx512(_) => return Self::Avx512,
            Level::Avx2(_) => return Self::Avx2,
            Level::Sse4_2(_) => return Self::Sse42,
            Level::Sse2(_) => return Self::Sse2,
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if level.as_neon().is_some() {
            return Self::Neon;
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if level.as_wasm_simd128().is_some() {
            return Self::WasmSimd128;
        }
        let _ = level;
        Self::Scalar
    }

    /// The proof that this machine runs the level, which SIMD code asks for.
    pub(crate) fn token(self) -> Option<Level> {
        let detected = Level::try_detect().unwrap_or_else(Level::baseline);
        match self {
            Self::Scalar => Some(Level::fallback()),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Sse2 => detected.as_sse2().map(Level::Sse2),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Sse42 => detected.as_sse4_2().map(Level::Sse4_2),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx2 => detected.as_avx2().map(Level::Avx2),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx512 => detected.as_avx512().map(Level::Avx512),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => detected.as_neon().map(Level::Neon),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::WasmSimd128 => detected.as_wasm_simd128().map(Level::WasmSimd128),
            _ => {
                let _ = detected;
                None
            }
        }
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SimdLevel {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or(UnknownLevel)
    }
}

/// The text names no [`SimdLevel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown SIMD level, expected one of {}", SimdLevel::ALL.map(SimdLevel::name).join(", "))
    }
}

impl core::error::Error for UnknownLevel {}
