//! Which rows of a map the kernel of a spatial convolution reads, and where they are kept.
//!
//! Rows are kept in *places*: input row `y` in place `y % slots`, then one place of zeros that stands for every row of
//! the padding. A ring of as many places as the kernel is high is enough for one output row; a whole map is the ring
//! that never overwrites a row.

use crate::shape::Conv2dGeometry;

/// Fills a ring as the kernel slides down.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The first input row that was not copied yet.
    next: usize,
}

impl Ring {
    /// Moves on to output row `row`, which does not lie above an earlier one. Calls `copy(input_row, place)` for every
    /// row of the map that it newly reads.
    #[inline(always)]
    pub(super) fn advance(&mut self, g: &Conv2dGeometry, row: usize, mut copy: impl FnMut(usize, usize)) -> RingRows {
        let slots = g.ring_rows();
        let rows = g.input_rows(row..row + 1);
        assert!(self.next <= rows.start + slots, "output row {row} comes after one below it");
        for y in self.next.max(rows.start)..rows.end {
            copy(y, y % slots);
        }
        self.next = self.next.max(rows.end);
        RingRows::of(g, row, slots)
    }
}

/// Where the kernel rows of one output row are kept.
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

    /// Those of output row `row`, kept in `slots` places.
    #[inline(always)]
    pub(super) fn of(g: &Conv2dGeometry, row: usize, slots: usize) -> Self {
        let (padded, before) = (row * g.stride[0], g.before[0]);
        let slot = match padded.checked_sub(before) {
            Some(top) if top < slots => top,
            Some(top) => top % slots,
            None => (slots - (before - padded) % slots) % slots,
        };
        Self { slots, slot, dilation: g.dilation[0], top: padded.wrapping_sub(before), height: g.input[0] }
    }

    /// The place that kernel row `tap` reads: the one of zeros, after all others, if it is in the padding.
    #[inline(always)]
    pub(super) fn place(&self, tap: usize) -> usize {
        let offset = tap * self.dilation;
        if self.top.wrapping_add(offset) >= self.height {
            return self.slots;
        }
        // A subtraction is enough for a ring; a map lower than the kernel needs the division.
        match self.slot + offset {
            slot if slot < self.slots => slot,
            slot if slot < 2 * self.slots => slot - self.slots,
            slot => slot % self.slots,
        }
    }
}
