//! How a value lies in memory.

use crate::kernels::{BLOCK, PaddedRows, Pixels, PixelsMut, Strides};

/// Most pixels of a planar map: those of MobileNet's stages of 14 x 14 and 7 x 7, where it is the weights that fill the
/// caches, and threads share a block's channels rather than its rows.
pub(super) const PLANAR: usize = 256;

/// Order of a value's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[H, W, C]`, as users see it.
    Last,
    /// `[H, C / 16, W, 16]`: a range of rows is one stretch of memory, so threads can write rows.
    Rows,
    /// `[C / 16, H, W, 16]`: a range of channels is one, and the pixels of a block are one row of tiles.
    Planar,
}

/// Size and order of a value, and the zeros around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    pub(super) order: Order,
    /// Zeros left and right of each row, in pixels; then there is a row of zeros too.
    pub(super) pads: Option<[usize; 2]>,
}

impl Format {
    pub(super) fn last([h, w, channels]: [usize; 3]) -> Self {
        Self { size: [h, w], channels, order: Order::Last, pads: None }
    }

    /// In blocks of channels.
    pub(super) fn blocked([h, w, channels]: [usize; 3], pads: Option<[usize; 2]>) -> Self {
        let order = if h * w <= PLANAR { Order::Planar } else { Order::Rows };
        Self { size: [h, w], channels, order, pads }
    }

    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    fn sides(&self) -> [usize; 2] {
        self.pads.unwrap_or_default()
    }

    /// Rows with the one of zeros.
    fn rows(&self) -> usize {
        self.size[0] + usize::from(self.pads.is_some())
    }

    pub(super) fn strides(&self) -> Strides {
        let [left, right] = self.sides();
        let row = (left + self.size[1] + right) * BLOCK;
        match self.order {
            Order::Last => Strides { row: self.size[1] * self.channels, pixel: self.channels, block: BLOCK },
            Order::Rows => Strides { row: self.blocks().saturating_mul(row), pixel: BLOCK, block: row },
            Order::Planar => Strides { row, pixel: BLOCK, block: self.rows().saturating_mul(row) },
        }
    }

    /// Elements, with zeros and unused lanes; the largest number if there is none for them.
    pub(super) fn len(&self) -> usize {
        self.parts().saturating_mul(self.part_len())
    }

    /// Stretches of memory that threads may write apart: rows, or blocks of channels.
    pub(super) fn parts(&self) -> usize {
        match self.order {
            Order::Last | Order::Rows => self.rows(),
            Order::Planar => self.blocks(),
        }
    }

    pub(super) fn part_len(&self) -> usize {
        match self.order {
            Order::Last | Order::Rows => self.strides().row,
            Order::Planar => self.strides().block,
        }
    }

    /// The whole value, to read.
    pub(super) fn pixels<'a>(&self, data: &'a [f32]) -> Pixels<'a, f32> {
        let start = self.sides()[0] * BLOCK;
        Pixels::strided(&data[start..], self.size, self.channels, self.strides())
    }

    /// `channels` channels of `rows` rows that start at `data`, to write.
    pub(super) fn part_mut<'a>(&self, data: &'a mut [f32], rows: usize, channels: usize) -> PixelsMut<'a, f32> {
        let start = self.sides()[0] * BLOCK;
        PixelsMut::strided(&mut data[start..], [rows, self.size[1]], channels, self.strides())
    }

    /// The whole value with `left` of its zeros, for a depthwise convolution.
    pub(super) fn padded<'a>(&self, data: &'a [f32], left: usize) -> PaddedRows<'a> {
        PaddedRows { data: &data[(self.sides()[0] - left) * BLOCK..], places: self.size[0], strides: self.strides() }
    }

    /// Writes the zeros of the parts that `data` is, all of the value's or as many as fit; `last` if its last part is
    /// the value's.
    pub(super) fn clear_border(&self, data: &mut [f32], last: bool) {
        let Some([left, right]) = self.pads else { return };
        let row = (left + self.size[1] + right) * BLOCK;
        for line in data.chunks_exact_mut(row) {
            line[..left * BLOCK].fill(0.0);
            line[row - right * BLOCK..].fill(0.0);
        }
        match self.order {
            Order::Planar => data.chunks_exact_mut(self.part_len()).for_each(|plane| {
                let zeros = plane.len() - row;
                plane[zeros..].fill(0.0);
            }),
            _ if last => {
                let zeros = data.len() - self.part_len();
                data[zeros..].fill(0.0);
            }
            _ => {}
        }
    }
}
