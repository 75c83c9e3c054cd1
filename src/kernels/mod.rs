//! Kernels: slices in, slices out.
//!
//! No allocation, no threads, no errors: sizes are asserted at the top, loops follow. Every kernel has a plain
//! form in [`mod@reference`] that defines its meaning and a SIMD form for `f32`. Maps are channels-last or in blocks of
//! channels, with strides of their own ([`Strides`]).

pub mod reference;

#[macro_use]
mod unroll;

pub mod columns;
mod conv;
mod depthwise;
mod depthwise_gradient;
mod level;
mod linear;
mod outer;
mod panel;
mod plane;
mod pointwise;
mod pool;
mod prefetch;
mod ring;
mod tile;

pub use conv::{Group, KeptRows, conv, conv_scratch_len};
pub use depthwise::{PackedDepthwise, PaddedRows, depthwise, depthwise_in_place, depthwise_scratch_len};
pub use depthwise_gradient::{MOST_TAPS, Plane, depthwise_input_gradient, depthwise_weight_gradient, gradient_border};
pub use level::{SimdLevel, UnknownLevel};
pub use linear::linear;
pub use outer::outer;
pub use panel::Panel;
pub use plane::{GroupOf, Sums, combine_plane, fill_plane, mask_plane, spread_plane};
pub use pointwise::{PackedWeights, TILES, pointwise};
pub use pool::{global_average, global_max, pool};

use crate::Element;

/// Channels of a block: 64 bytes of `f32`, one cache line of each pixel.
pub const BLOCK: usize = 16;

/// Where a map's elements lie: row `y`, column `x`, channel `c` is at
/// `y * row + x * pixel + c / BLOCK * block + c % BLOCK`.
///
/// Channels-last is `block == BLOCK`. The compiled engine keeps pixels of one block side by side (`pixel == BLOCK`), so
/// that neither a depthwise row nor the input of a register tile leaves one stretch of memory, whatever the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one pixel of a row to the next.
    pub pixel: usize,
    /// Elements from one block of channels to the next.
    pub block: usize,
}

impl Strides {
    /// Where a channel is, counted from its pixel.
    #[must_use]
    pub const fn channel(self, channel: usize) -> usize {
        channel / BLOCK * self.block + channel % BLOCK
    }

    /// Elements from the start of a map to its end.
    const fn span(self, [rows, columns]: [usize; 2], channels: usize) -> usize {
        if rows == 0 || columns == 0 || channels == 0 {
            return 0;
        }
        (rows - 1) * self.row + (columns - 1) * self.pixel + self.channel(channels - 1) + 1
    }

    /// The same map's strides as one row, if its rows follow each other without gaps.
    const fn is_flat(self, columns: usize) -> bool {
        self.row == columns * self.pixel
    }
}

macro_rules! pixels {
    ($(#[$attribute:meta])* $name:ident, $reference:ty) => {
        $(#[$attribute])*
        pub struct $name<'a, T> {
            /// The elements.
            pub data: $reference,
            /// Rows and columns.
            pub size: [usize; 2],
            /// Elements of a pixel that carry data.
            pub channels: usize,
            /// Where they lie.
            pub strides: Strides,
        }

        impl<'a, T> $name<'a, T> {
            /// A map with strides of its own.
            ///
            /// # Panics
            ///
            /// If the slice is shorter than the map.
            #[must_use]
            pub fn strided(data: $reference, size: [usize; 2], channels: usize, strides: Strides) -> Self {
                assert!(data.len() >= strides.span(size, channels), "slice is shorter than {size:?} pixels");
                Self { data, size, channels, strides }
            }

            /// Channels-last pixels, `pitch` elements apart.
            ///
            /// # Panics
            ///
            /// If the pitch is smaller than the channel count, or the slice shorter than the last pixel's end.
            #[must_use]
            pub fn new(data: $reference, size: [usize; 2], channels: usize, pitch: usize) -> Self {
                assert!(pitch >= channels, "pitch {pitch} is smaller than {channels} channels");
                Self::strided(data, size, channels, Strides { row: size[1] * pitch, pixel: pitch, block: BLOCK })
            }

            /// Channels-last pixels without gaps between them.
            ///
            /// # Panics
            ///
            /// If the slice is shorter than the map.
            #[must_use]
            pub fn dense(data: $reference, size: [usize; 2], channels: usize) -> Self {
                Self::new(data, size, channels, channels)
            }

            /// Number of pixels.
            #[must_use]
            pub const fn count(&self) -> usize {
                self.size[0] * self.size[1]
            }

            /// Elements from one pixel to the next of a channels-last map without gaps between its rows.
            ///
            /// # Panics
            ///
            /// If it is not such a map.
            #[must_use]
            fn pitch(&self) -> usize {
                let Strides { pixel, block, .. } = self.strides;
                assert!(block == BLOCK && (self.size[0] <= 1 || self.strides.is_flat(self.size[1])), "not channels-last");
                pixel
            }
        }
    };
}

pixels! {
    /// A map to read.
    #[derive(Clone, Copy, Debug)]
    Pixels, &'a [T]
}

pixels! {
    /// A map to write; gaps between its pixels are left alone.
    #[derive(Debug)]
    PixelsMut, &'a mut [T]
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
