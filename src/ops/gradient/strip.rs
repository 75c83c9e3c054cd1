//! Strips of rows of a depthwise convolution, for up to 64 blocks of channels.
//!
//! A strip's planes stay in the second-level cache from the copy out of the maps to the copy back, however high the
//! map. Rows that two strips need are kept from one to the next.

use core::ops::Range;

use crate::aligned::Aligned;
use crate::kernels::{BLOCK, GroupOf, Plane};
use crate::shape::Conv2dGeometry;

/// Most channels that are worked on at once. Groups of 256 take up to 1.4 times as long where pixels have more (Zen 3),
/// as memory delivers long stretches fastest.
const GROUP: usize = 64 * BLOCK;

/// Most blocks of a group of so many channels.
pub(super) fn group_blocks(channels: usize) -> usize {
    channels.min(GROUP).div_ceil(BLOCK)
}

/// Elements of a strip's planes: 512 KiB, half of a second-level cache.
const STRIP: usize = 128 * 1024;

/// First channel and count of each group of channels that is worked on at once.
pub(super) fn groups(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(GROUP).map(move |first| (first, GROUP.min(channels - first)))
}

/// The strips of a convolution over maps of so many channels, each with its range of output rows.
pub(super) fn strips(g: &Conv2dGeometry, channels: usize) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
    let row = (2 * g.stride[0] * g.padded_width() + g.output[1]) * channels.next_multiple_of(BLOCK).min(GROUP);
    let (rows, height) = ((STRIP / row.max(1)).max(1), g.output[0]);
    (0..height.div_ceil(rows)).map(move |strip| strip * rows..height.min((strip + 1) * rows))
}

/// Rows of the input from the first tap of a kernel to its last.
const fn extent(g: &Conv2dGeometry) -> usize {
    (g.kernel[0] - 1) * g.dilation[0] + 1
}

/// Rows of the input that the outputs of a strip read, counted from the map's first; some may lie in the padding.
pub(super) fn input_rows(g: &Conv2dGeometry, strip: &Range<usize>) -> Range<isize> {
    let place = |row: usize| row.cast_signed() - g.before[0].cast_signed();
    place(strip.start * g.stride[0])..place((strip.end - 1) * g.stride[0] + extent(g))
}

/// Rows of outputs above a strip that its inputs took part in.
pub(super) const fn halo(g: &Conv2dGeometry) -> usize {
    (extent(g) - 1) / g.stride[0]
}

/// Rows of the input whose gradient is complete when a strip's outputs are there, but was not before.
pub(super) fn finished_rows(g: &Conv2dGeometry, strip: &Range<usize>) -> Range<usize> {
    let place = |row: usize| (row * g.stride[0]).saturating_sub(g.before[0]).min(g.input[0]);
    let start = if strip.start == 0 { 0 } else { place(strip.start) };
    start..if strip.end == g.output[0] { g.input[0] } else { place(strip.end) }
}

/// A strip's part of the convolution whose gradient by [`finished_rows`] is wanted.
pub(super) fn strip_geometry(g: &Conv2dGeometry, strip: &Range<usize>, finished: &Range<usize>) -> Conv2dGeometry {
    let before = finished.start + g.before[0] - strip.start * g.stride[0];
    Conv2dGeometry {
        input: [finished.len(), g.input[1]],
        output: [strip.len(), g.output[1]],
        before: [before, g.before[1]],
        ..*g
    }
}

/// Rows of a group of blocks that move down a map, with zeros around it.
#[derive(Default)]
pub(super) struct Band {
    data: Aligned<f32>,
    shape: BandShape,
    /// The map's rows that it holds.
    held: Range<isize>,
}

/// What a [`Band`] has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct BandShape {
    pub(super) blocks: usize,
    /// Most rows it holds.
    pub(super) most: usize,
    /// Pixels of a row: zeros to the left of the map, the map's, and all with the zeros to its right.
    pub(super) left: usize,
    pub(super) inner: usize,
    pub(super) width: usize,
}

impl Band {
    /// Makes it a band of this shape that holds nothing. Nothing is ever written beside the map, so the zeros there
    /// stay.
    pub(super) fn start(&mut self, shape: BandShape) {
        if self.shape != shape {
            self.shape = shape;
            self.data.zeroed(shape.blocks * shape.most * shape.width * BLOCK);
        }
        self.restart();
    }

    /// Forgets the rows it holds.
    pub(super) fn restart(&mut self) {
        self.held = 0..0;
    }

    /// Moves on to `rows` of a map; has `fill` write those that are new into the plane that it is given.
    pub(super) fn advance(
        &mut self,
        rows: Range<isize>,
        group: GroupOf,
        fill: impl FnOnce(GroupOf, Range<usize>, &mut [[f32; BLOCK]]),
    ) {
        let Self { shape: BandShape { most, left, width, .. }, ref held, .. } = *self;
        assert!(rows.len() <= most, "more rows than the band holds");
        let kept = (rows.start.max(held.start)..rows.end.min(held.end)).len();
        let moved = (rows.start - held.start).max(0).cast_unsigned();
        let [height, _] = group.size;
        let fresh = rows.start + kept.cast_signed()..rows.end;
        let new = fresh.start.clamp(0, height.cast_signed())..fresh.end.clamp(0, height.cast_signed());
        let (data, _) = self.data.as_chunks_mut::<BLOCK>();
        for block in data.chunks_exact_mut(most * width) {
            if kept > 0 {
                block.copy_within(moved * width..(moved + kept) * width, 0);
            }
            for row in fresh.clone().filter(|row| !new.contains(row)) {
                block[(row - rows.start).cast_unsigned() * width..][..width].fill([0.0; BLOCK]);
            }
        }
        if !new.is_empty() {
            let from = (new.start - rows.start).cast_unsigned() * width + left;
            let new = new.start.cast_unsigned()..new.end.cast_unsigned();
            let group = GroupOf { size: [new.len(), group.size[1]], row: width, block: most * width, ..group };
            fill(group, new, &mut data[from..]);
        }
        self.held = rows;
    }

    /// A block of the rows it holds, `above` of them before the first that is meant.
    pub(super) fn plane(&self, block: usize, above: usize) -> Plane<'_> {
        let BandShape { most, width, left, .. } = self.shape;
        Plane { data: &self.data.as_chunks().0[block * most * width..][..most * width], width, before: [above, left] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Padding, Window};

    /// Every row of the input is finished by one strip, when all outputs it took part in are there.
    #[test]
    fn strips_finish_every_row_once_and_not_too_early() {
        for (kernel, stride, dilation, padding) in
            [(3, 1, 1, 1), (3, 2, 1, 1), (3, 2, 1, 0), (5, 2, 2, 4), (2, 3, 1, 0), (7, 1, 1, 6), (1, 2, 1, 0)]
        {
            let window = Window::new(kernel, Padding::Symmetric(padding)).stride(stride).dilation(dilation);
            let g = window.over([301, 130]).unwrap();
            let mut next = [0, 0];
            assert!(strips(&g, 64).len() > 1);
            for strip in strips(&g, 64) {
                let finished = finished_rows(&g, &strip);
                assert_eq!([strip.start, finished.start], next);
                next = [strip.end, finished.end];
                if finished.is_empty() {
                    continue;
                }
                let part = strip_geometry(&g, &strip, &finished);
                for (y, tap) in (0..finished.len()).flat_map(|y| (0..kernel).map(move |tap| (y, tap))) {
                    let place = (y + part.before[0]).cast_signed() - (tap * dilation).cast_signed();
                    let output = place.div_euclid(stride.cast_signed());
                    let is_last = strip.end == g.output[0];
                    assert!(output >= -halo(&g).cast_signed() || place.rem_euclid(stride.cast_signed()) != 0);
                    assert!(is_last || output < strip.len().cast_signed());
                }
            }
            assert_eq!(next, [g.output[0], g.input[0]]);
        }
    }
}
