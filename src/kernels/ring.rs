//! The ring of input rows that a spatial convolution slides over: as many rows as the kernel is high, then one of zeros.
//!
//! Rows of the padded map are counted from the padding's top edge. Each is copied once, into the place of the row that
//! no later output reads; a row in the padding is not copied at all, its taps read the row of zeros.

use crate::shape::Conv2dGeometry;

/// Which rows are in the ring.
pub(super) struct Ring<'a> {
    geometry: &'a Conv2dGeometry,
    /// The first row that is not in the ring yet, and its place.
    copied: usize,
    next: usize,
}

impl<'a> Ring<'a> {
    /// An empty ring, for output rows from `first_row` on.
    pub(super) fn new(geometry: &'a Conv2dGeometry, first_row: usize) -> Self {
        Self { geometry, copied: first_row * geometry.stride[0], next: 0 }
    }

    /// Moves on to output row `row`. Calls `copy(input_row, slot)` for every row of the map that it newly reads.
    #[inline(always)]
    pub(super) fn advance(&mut self, row: usize, mut copy: impl FnMut(usize, usize)) -> RingRows {
        let g = self.geometry;
        let (slots, top) = (g.ring_rows(), row * g.stride[0]);
        while self.copied < top + slots {
            let input_row = self.copied.wrapping_sub(g.before[0]);
            if self.copied >= top && input_row < g.input[0] {
                copy(input_row, self.next);
            }
            self.copied += 1;
            self.next = if self.next + 1 < slots { self.next + 1 } else { 0 };
        }
        let top = top.wrapping_sub(g.before[0]);
        RingRows { slots, slot: self.next, dilation: g.dilation[0], top, height: g.input[0] }
    }
}

/// Where the kernel rows of one output row are in the ring.
#[derive(Clone, Copy)]
pub(super) struct RingRows {
    slots: usize,
    /// The place of the row that the first kernel row reads.
    slot: usize,
    dilation: usize,
    /// The map's row that the first kernel row reads (it wraps around above the map), and the map's height.
    top: usize,
    height: usize,
}

impl RingRows {
    /// One kernel row, which reads place 0.
    pub(super) const ONE: Self = Self { slots: 1, slot: 0, dilation: 1, top: 0, height: 1 };

    /// The place that kernel row `tap` reads: the row of zeros, after all others, if it is in the padding.
    #[inline(always)]
    pub(super) fn place(&self, tap: usize) -> usize {
        let offset = tap * self.dilation;
        let slot = self.slot + offset;
        let slot = if slot < self.slots { slot } else { slot - self.slots };
        if self.top.wrapping_add(offset) < self.height { slot } else { self.slots }
    }
}
