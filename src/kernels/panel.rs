//! Panels of weights: how a level cuts a matrix product's outputs, and how their weights are packed.
//!
//! A panel is one to three vectors of output channels: first their bias, then a row per input. What a vector would be
//! half empty for is a *half panel*, whose rows hold four inputs each, in two vectors: those of outputs 0, 2, 4 and 6,
//! `[w[k][0], w[k + 1][0], w[k + 2][0], w[k + 3][0], w[k][2], ..]`, and those of 1, 3, 5 and 7.

use core::ops::Range;

use super::{BLOCK, Pixels, SimdLevel};

/// Output channels of a half panel.
pub(super) const HALF: usize = 8;

/// Inputs of a row of a half panel.
pub(super) const QUAD: usize = 4;

/// How a level cuts output channels into panels of vectors.
///
/// When the lanes do not divide the channels, the last vector of a channels-last map ends with the last channel and
/// repeats some of the one before; only fewer channels than lanes leave lanes empty. A map of whole blocks has room for
/// the last vector's lanes, and no vector would fit across two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panels {
    /// Floats of a vector.
    lanes: usize,
    /// Vectors of a panel, as long as enough are left.
    vectors: usize,
    /// Output channels.
    pub(super) outputs: usize,
    /// Whether outputs go to whole blocks.
    pub(super) blocked: bool,
}

impl Panels {
    pub(super) fn of(level: SimdLevel, outputs: usize, blocked: bool) -> Self {
        let (lanes, vectors) = match level {
            SimdLevel::Avx512 => (16, 3),
            SimdLevel::Avx2 => (8, 2),
            SimdLevel::Neon => (4, 3),
            _ => (4, 2),
        };
        Self { lanes, vectors, outputs, blocked }
    }

    /// Vectors of the next panel when `left` are left.
    pub(super) fn next(self, left: usize) -> usize {
        match left {
            // No lonely last vector, which has too few sums in flight: three at once, or two and two.
            3 => 3,
            4 => 2,
            _ => left.min(self.vectors),
        }
    }

    /// Whether a half panel is the last: the last 512-bit vector would be half repeats or more.
    pub(super) fn has_half(self) -> bool {
        self.lanes == 2 * HALF && (1..=HALF).contains(&(self.outputs % self.lanes))
    }

    /// The first channel of a vector.
    pub(super) fn channel(self, vector: usize) -> usize {
        self.start(vector, self.lanes)
    }

    /// The first channel of the half panel.
    pub(super) fn half_channel(self) -> usize {
        self.start(self.total(), HALF)
    }

    fn start(self, vector: usize, width: usize) -> usize {
        let most = if self.blocked { usize::MAX } else { self.outputs.saturating_sub(width) };
        (vector * self.lanes).min(most)
    }

    /// Whole vectors.
    pub(super) fn total(self) -> usize {
        self.outputs.div_ceil(self.lanes) - usize::from(self.has_half())
    }

    /// Floats of the packed weights: every panel's bias and rows.
    pub(super) fn packed_len(self, inputs: usize) -> usize {
        let half = if self.has_half() { half_len(inputs) } else { 0 };
        (inputs + 1) * self.total() * self.lanes + half
    }

    /// Packs a row: for each channel of `first` a vector of outputs from there on; zeros without `from`.
    fn pack_row(self, first: &[usize], from: Option<&[f32]>, to: &mut [f32]) {
        match self.lanes {
            16 => pack_vectors::<16>(first, from, self.outputs, to),
            8 => pack_vectors::<8>(first, from, self.outputs, to),
            _ => pack_vectors::<4>(first, from, self.outputs, to),
        }
    }

    /// The panels of packed weights.
    pub(super) fn parts(self, inputs: usize, packed: &mut [f32]) -> impl Iterator<Item = Panel<'_>> {
        let (mut vector, mut rest) = (0, packed);
        let mut half = self.has_half();
        core::iter::from_fn(move || {
            let vectors = self.next(self.total() - vector);
            let len = if vectors > 0 {
                (inputs + 1) * vectors * self.lanes
            } else if core::mem::take(&mut half) {
                half_len(inputs)
            } else {
                return None;
            };
            let (packed, tail) = core::mem::take(&mut rest).split_at_mut(len);
            let panel = Panel { panels: self, vector, vectors, inputs, packed };
            (vector, rest) = (vector + vectors, tail);
            Some(panel)
        })
    }
}

/// The rows of a weight, [`QUAD`] at a time, as a row of a half panel holds them. Each piece is packed for all panels
/// before the next: memory delivers long stretches fastest. The first, with the bias, may have none.
pub(super) fn row_pieces(inputs: usize) -> impl Iterator<Item = Range<usize>> {
    (0..inputs.max(1)).step_by(QUAD).map(move |first| first..inputs.min(first + QUAD))
}

/// One panel of packed weights, to be filled.
#[derive(Debug)]
pub struct Panel<'a> {
    panels: Panels,
    /// The first of its vectors, and their number; none is the half panel.
    vector: usize,
    vectors: usize,
    inputs: usize,
    packed: &'a mut [f32],
}

impl Panel<'_> {
    /// Packs these panels' parts of `weight [inputs, outputs]` and `bias [outputs]` (zeros if `None`).
    ///
    /// # Panics
    ///
    /// If a panel is of weights of another size.
    pub fn pack(panels: &mut [Self], weight: Pixels<'_, f32>, bias: Option<&[f32]>) {
        for rows in row_pieces(weight.count()) {
            for panel in &mut *panels {
                panel.pack_rows(weight, bias, rows.clone());
            }
        }
    }

    pub(super) fn pack_rows(&mut self, weight: Pixels<'_, f32>, bias: Option<&[f32]>, rows: Range<usize>) {
        let Self { panels, vector, vectors, inputs, ref mut packed } = *self;
        assert_eq!([weight.count(), weight.channels], [inputs, panels.outputs], "a panel of another weight");
        let row = |k: usize| (k < inputs).then(|| &weight.data[k * weight.pitch()..]);
        if vectors == 0 {
            let (start, quads) = packed.split_at_mut(QUAD * HALF);
            if rows.start == 0 {
                fill_half(panels, start, [bias, None, None, None]);
            }
            let quads = quads.chunks_exact_mut(QUAD * HALF).enumerate();
            for (quad, to) in quads.take(rows.end.div_ceil(QUAD)).skip(rows.start / QUAD) {
                fill_half(panels, to, [0, 1, 2, 3].map(|j| row(quad * QUAD + j)));
            }
            return;
        }
        let first = [0, 1, 2].map(|v| panels.channel(vector + v));
        let width = vectors * panels.lanes;
        let (bias_row, packed) = packed.split_at_mut(width);
        // Bias comes with the first rows.
        let bias = (rows.start == 0).then_some((bias_row, bias)).into_iter();
        let packed = packed.chunks_exact_mut(width).skip(rows.start);
        let all = bias.chain(packed.zip(rows.map(row)));
        all.for_each(|(to, from)| panels.pack_row(&first[..vectors], from, to));
    }

    /// Multiplies each output's weights, but not its bias, by its factor.
    pub(super) fn scale(&mut self, factors: &[f32]) {
        let Self { panels, vector, vectors, ref mut packed, .. } = *self;
        let mut row = [0.0; 3 * BLOCK];
        let width = if vectors == 0 { QUAD * HALF } else { vectors * panels.lanes };
        let row = &mut row[..width];
        let first = [0, 1, 2].map(|v| panels.channel(vector + v));
        if vectors == 0 {
            fill_half(panels, row, [Some(factors); QUAD]);
        } else {
            panels.pack_row(&first[..vectors], Some(factors), row);
        }
        for weights in packed[width..].chunks_exact_mut(width) {
            weights.iter_mut().zip(&*row).for_each(|(weight, factor)| *weight *= factor);
        }
    }

    /// Packs its part of `weight [outputs, inputs]`, without bias.
    ///
    /// # Panics
    ///
    /// As [`Panel::pack`].
    pub fn pack_transposed(&mut self, weight: Pixels<'_, f32>) {
        /// Rows of the panel that stay in the first-level cache while its lanes are filled one by one.
        const ROWS: usize = 64;
        let Self { panels, vector, vectors, inputs, ref mut packed } = *self;
        let width = if vectors == 0 { QUAD * HALF } else { vectors * panels.lanes };
        assert_eq!([weight.channels, weight.count()], [inputs, panels.outputs], "a panel of another weight");
        let (bias, rows) = packed.split_at_mut(width);
        bias.fill(0.0);
        if vectors == 0 {
            rows.fill(0.0);
            let first = panels.half_channel();
            for channel in first..panels.outputs.min(first + HALF) {
                let from = &weight.data[channel * weight.pitch()..][..inputs];
                for (quad, to) in from.chunks(QUAD).zip(rows.chunks_exact_mut(width)) {
                    to[half_lane(channel - first)..][..quad.len()].copy_from_slice(quad);
                }
            }
            return;
        }
        for (piece, rows) in rows.chunks_mut(ROWS * width).enumerate() {
            for lane in 0..width {
                let channel = panels.channel(vector + lane / panels.lanes) + lane % panels.lanes;
                let to = rows[lane..].iter_mut().step_by(width);
                if channel < panels.outputs {
                    let from = &weight.data[channel * weight.pitch() + piece * ROWS..];
                    to.zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.for_each(|to| *to = 0.0);
                }
            }
        }
    }
}

/// As [`Panels::pack_row`]; a constant length is copied without a call.
fn pack_vectors<const LANES: usize>(first: &[usize], from: Option<&[f32]>, outputs: usize, to: &mut [f32]) {
    for (&channel, to) in first.iter().zip(to.as_chunks_mut::<LANES>().0) {
        let Some(from) = from.map(|from| &from[channel..outputs]) else {
            *to = [0.0; LANES];
            continue;
        };
        if let Some(from) = from.first_chunk() {
            *to = *from;
        } else {
            *to = [0.0; LANES];
            to[..from.len()].copy_from_slice(from);
        }
    }
}

/// Floats of a half panel: its bias and its rows.
fn half_len(inputs: usize) -> usize {
    (inputs.div_ceil(QUAD) + 1) * QUAD * HALF
}

/// A row of the half panel: each output's weights of four inputs, zeros for one that is not there.
fn fill_half(panels: Panels, to: &mut [f32], inputs: [Option<&[f32]>; QUAD]) {
    let first = panels.half_channel();
    let columns = HALF.min(panels.outputs - first);
    to.fill(0.0);
    for (k, from) in inputs.into_iter().enumerate() {
        let Some(from) = from else { continue };
        for (channel, from) in from[first..][..columns].iter().enumerate() {
            to[half_lane(channel) + k] = *from;
        }
    }
}

/// Where a row of the half panel has an output's first weight: even outputs are in one vector, odd ones in the other.
fn half_lane(channel: usize) -> usize {
    channel % 2 * (QUAD * HALF / 2) + channel / 2 * QUAD
}
