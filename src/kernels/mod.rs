//! Kernels: slices in, slices out.
//!
//! No allocation, no threads, no errors: sizes are asserted at the top, loops follow. Every kernel has a plain
//! form in [`mod@reference`] that defines its meaning and a SIMD form for `f32`; maps are channels-last, and the
//! distance between pixels (the pitch) is given apart from the channel count.

pub mod reference;

#[macro_use]
mod unroll;

mod conv;
mod depthwise;
mod level;
mod linear;
mod pointwise;
mod pool;
mod ring;
mod tile;

pub use conv::{Group, conv, conv_scratch_len};
pub use depthwise::{PackedDepthwise, depthwise, depthwise_scratch_len};
pub use level::{SimdLevel, UnknownLevel};
pub use linear::linear;
pub use pointwise::{PackedWeights, pointwise};
pub use pool::{global_average, global_max, pool};

use crate::Element;

/// A channels-last map to read: `count` pixels of `channels` elements, `pitch` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a, T> {
    /// The elements; pixel `i` is `data[i * pitch..][..channels]`.
    pub data: &'a [T],
    /// Number of pixels.
    pub count: usize,
    /// Elements of a pixel that carry data.
    pub channels: usize,
    /// Elements from one pixel to the next, at least `channels`.
    pub pitch: usize,
}

impl<'a, T> Pixels<'a, T> {
    /// # Panics
    ///
    /// If the pitch is smaller than the channel count, or the slice shorter than the last pixel's end.
    #[must_use]
    pub fn new(data: &'a [T], count: usize, channels: usize, pitch: usize) -> Self {
        assert!(pitch >= channels, "pitch {pitch} is smaller than {channels} channels");
        assert!(data.len() >= span(count, channels, pitch), "slice is shorter than {count} pixels");
        Self { data, count, channels, pitch }
    }

    /// A map without gaps between its pixels.
    ///
    /// # Panics
    ///
    /// If the slice is shorter than `count * channels`.
    #[must_use]
    pub fn dense(data: &'a [T], count: usize, channels: usize) -> Self {
        Self::new(data, count, channels, channels)
    }
}

/// A channels-last map to write: `count` pixels of `channels` elements, `pitch` elements apart.
#[derive(Debug)]
pub struct PixelsMut<'a, T> {
    /// The elements; pixel `i` is `data[i * pitch..][..channels]`.
    pub data: &'a mut [T],
    /// Number of pixels.
    pub count: usize,
    /// Elements of a pixel that carry data; the gap up to `pitch` is left alone.
    pub channels: usize,
    /// Elements from one pixel to the next, at least `channels`.
    pub pitch: usize,
}

impl<'a, T> PixelsMut<'a, T> {
    /// # Panics
    ///
    /// As [`Pixels::new`].
    #[must_use]
    pub fn new(data: &'a mut [T], count: usize, channels: usize, pitch: usize) -> Self {
        assert!(pitch >= channels, "pitch {pitch} is smaller than {channels} channels");
        assert!(data.len() >= span(count, channels, pitch), "slice is shorter than {count} pixels");
        Self { data, count, channels, pitch }
    }

    /// A map without gaps between its pixels.
    ///
    /// # Panics
    ///
    /// If the slice is shorter than `count * channels`.
    #[must_use]
    pub fn dense(data: &'a mut [T], count: usize, channels: usize) -> Self {
        Self::new(data, count, channels, channels)
    }
}

/// Elements from the first pixel's start to the last pixel's end.
fn span(count: usize, channels: usize, pitch: usize) -> usize {
    if count == 0 { 0 } else { (count - 1) * pitch + channels }
}

/// The range every output of a kernel is cut to before it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp<T> {
    /// The least value.
    pub low: T,
    /// The greatest value.
    pub high: T,
}

impl<T: Element> Clamp<T> {
    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self { low: T::neg_infinity(), high: T::infinity() }
    }

    /// `max(x, 0)`.
    #[must_use]
    pub fn relu() -> Self {
        Self { low: T::zero(), high: T::infinity() }
    }

    /// `min(max(x, 0), 6)`.
    #[must_use]
    pub fn relu6() -> Self {
        Self { low: T::zero(), high: T::from_f64(6.0) }
    }

    /// `value` cut to the range; a NaN stays NaN.
    #[must_use]
    pub fn apply(self, value: T) -> T {
        if value < self.low {
            self.low
        } else if value > self.high {
            self.high
        } else {
            value
        }
    }
}
