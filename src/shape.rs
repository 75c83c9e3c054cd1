//! Size arithmetic of windows (convolution and pooling): checked, in one place.
//!
//! Axes: `n` images, `h` rows, `w` columns, `c` channels. Pairs are `[vertical, horizontal]`.

use crate::{Error, Result};

/// The largest size along one axis: products of four of them, times the bytes of an element, are
/// checked where they are formed; this bound keeps sums of two of them from overflowing.
const MAX_EXTENT: usize = 1 << 24;

/// `[N, H, W, C]`: images, rows, columns, channels.
pub type Shape = [usize; 4];

/// How many rows and columns of zeros surround a map before a window slides over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Padding {
    /// TensorFlow's `SAME`: output is `ceil(input / stride)`; an odd number of zeros puts the extra
    /// one at the bottom and right.
    Same,
    /// This many zeros on each of the four sides, as PyTorch's `padding=p` does it.
    Symmetric(usize),
    /// Each side by itself; Keras' MobileNetV1 uses `(0, 1, 0, 1)`.
    Explicit {
        /// Rows above.
        top: usize,
        /// Rows below.
        bottom: usize,
        /// Columns to the left.
        left: usize,
        /// Columns to the right.
        right: usize,
    },
}

impl Padding {
    /// No padding: TensorFlow's `VALID`.
    pub const VALID: Self = Self::Symmetric(0);
}

/// A window that slides over a map: its size, step, dilation and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    /// Rows and columns of taps.
    pub kernel: [usize; 2],
    /// Rows and columns from one output to the next.
    pub stride: [usize; 2],
    /// Rows and columns from one tap to the next; 1 is a dense window.
    pub dilation: [usize; 2],
    /// The zeros around the map.
    pub padding: Padding,
}

impl Window {
    /// A square window with stride and dilation 1.
    #[must_use]
    pub const fn new(kernel: usize, padding: Padding) -> Self {
        Self { kernel: [kernel; 2], stride: [1; 2], dilation: [1; 2], padding }
    }

    /// The same window with this stride on both axes.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride; 2];
        self
    }

    /// The same window with this dilation on both axes.
    #[must_use]
    pub const fn dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation; 2];
        self
    }

    /// Resolves the window over a map of `input` rows and columns.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd, or the padded map is smaller than the window.
    pub fn over(&self, input: [usize; 2]) -> Result<Conv2dGeometry> {
        const OPERATION: &str = "window";
        for (argument, values, least) in [
            ("input size", input, 1),
            ("kernel size", self.kernel, 1),
            ("stride", self.stride, 1),
            ("dilation", self.dilation, 1),
        ] {
            if values.iter().any(|&value| value < least || value > MAX_EXTENT) {
                return Err(Error::invalid(
                    OPERATION,
                    argument,
                    format_args!("{values:?}"),
                    format_args!("{least} to {MAX_EXTENT}"),
                ));
            }
        }
        let extent = |axis: usize| (self.kernel[axis] - 1).saturating_mul(self.dilation[axis]).saturating_add(1);
        let same = |axis: usize| {
            let steps = input[axis].div_ceil(self.stride[axis]) - 1;
            let needed = (steps * self.stride[axis]).saturating_add(extent(axis));
            let total = needed.saturating_sub(input[axis]);
            (total / 2, total - total / 2)
        };
        let sides = match self.padding {
            Padding::Same => [same(0), same(1)],
            Padding::Symmetric(zeros) => [(zeros, zeros); 2],
            Padding::Explicit { top, bottom, left, right } => [(top, bottom), (left, right)],
        };
        let mut output = [0; 2];
        for axis in 0..2 {
            let (before, after) = sides[axis];
            let padded = input[axis].saturating_add(before).saturating_add(after);
            if before > MAX_EXTENT || after > MAX_EXTENT || extent(axis) > padded {
                return Err(Error::invalid(
                    OPERATION,
                    "padded input size",
                    padded,
                    format_args!("at least the window's extent {} on axis {axis}", extent(axis)),
                ));
            }
            output[axis] = (padded - extent(axis)) / self.stride[axis] + 1;
        }
        Ok(Conv2dGeometry {
            input,
            output,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            before: [sides[0].0, sides[1].0],
            after: [sides[0].1, sides[1].1],
        })
    }
}

/// A [`Window`] resolved over a map of known size. All pairs are `[vertical, horizontal]`.
///
/// Output `o` reads input row (or column) `o * stride + tap * dilation - before`; outside the map it reads 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dGeometry {
    /// Rows and columns of the input map.
    pub input: [usize; 2],
    /// Rows and columns of the output map.
    pub output: [usize; 2],
    /// Rows and columns of taps.
    pub kernel: [usize; 2],
    /// Step between outputs.
    pub stride: [usize; 2],
    /// Step between taps.
    pub dilation: [usize; 2],
    /// Zeros above and to the left.
    pub before: [usize; 2],
    /// Zeros below and to the right.
    pub after: [usize; 2],
}

impl Conv2dGeometry {
    /// Number of taps, `kernel[0] * kernel[1]`.
    #[must_use]
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Pixels of the input map.
    #[must_use]
    pub const fn input_pixels(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Pixels of the output map.
    #[must_use]
    pub const fn output_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Rows from the first to the last the kernel touches: what a ring of input rows must hold.
    #[must_use]
    pub const fn ring_rows(&self) -> usize {
        (self.kernel[0] - 1) * self.dilation[0] + 1
    }

    /// The input rows that output rows `rows` read.
    #[must_use]
    pub fn input_rows(&self, rows: core::ops::Range<usize>) -> core::ops::Range<usize> {
        let first = (rows.start * self.stride[0]).saturating_sub(self.before[0]);
        let end = (rows.end.saturating_sub(1) * self.stride[0] + self.ring_rows()).saturating_sub(self.before[0]);
        first.min(self.input[0])..end.min(self.input[0])
    }

    /// Columns of the input map with the zeros on both sides.
    #[must_use]
    pub const fn padded_width(&self) -> usize {
        self.before[1] + self.input[1] + self.after[1]
    }

    /// The input index that tap `tap` of output `output` reads on `axis`, or `None` in the padding.
    #[must_use]
    pub fn source(&self, axis: usize, output: usize, tap: usize) -> Option<usize> {
        let padded = output * self.stride[axis] + tap * self.dilation[axis];
        padded.checked_sub(self.before[axis]).filter(|&index| index < self.input[axis])
    }
}

/// The number of elements of `shape`, or an error if it does not fit memory.
///
/// # Errors
///
/// If the product of the sizes that are not 0, times eight bytes, exceeds `isize::MAX`.
pub fn element_count(operation: &'static str, shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .filter(|&&size| size != 0)
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .filter(|&count| count <= isize::MAX.unsigned_abs() / 8)
        .map(|count| if shape.contains(&0) { 0 } else { count })
        .ok_or_else(|| Error::shape(operation, "shape", shape, "a shape whose elements fit in memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_puts_the_extra_zero_after_for_even_inputs() {
        let geometry = Window::new(3, Padding::Same).stride(2).over([224, 7]).unwrap();
        assert_eq!(geometry.before, [0, 1]);
        assert_eq!(geometry.after, [1, 1]);
        assert_eq!(geometry.output, [112, 4]);
    }

    #[test]
    fn keras_v1_quirk_differs_from_same_at_odd_sizes() {
        let quirk = Padding::Explicit { top: 0, bottom: 1, left: 0, right: 1 };
        assert_eq!(Window::new(3, quirk).stride(2).over([7, 8]).unwrap().output, [3, 4]);
    }

    #[test]
    fn window_refuses_zero_and_absurd_sizes() {
        for window in [
            Window::new(0, Padding::Same),
            Window::new(3, Padding::Same).stride(0),
            Window::new(3, Padding::Same).dilation(0),
            Window::new(3, Padding::Symmetric(usize::MAX)),
            Window::new(usize::MAX, Padding::Symmetric(1)),
            Window::new(3, Padding::VALID).dilation(usize::MAX),
        ] {
            assert!(matches!(window.over([8, 8]), Err(Error::Invalid { .. })), "{window:?}");
        }
        assert!(Window::new(3, Padding::VALID).over([2, 8]).is_err());
        assert!(Window::new(3, Padding::Same).over([0, 8]).is_err());
    }

    #[test]
    fn element_count_refuses_overflow() {
        assert!(element_count("test", &[usize::MAX, 2]).is_err());
        assert_eq!(element_count("test", &[2, 3, 0]).unwrap(), 0);
    }
}
