//! Panels of weights: how a level cuts a matrix product's outputs, and how their weights are packed.
//!
//! A panel is one to three vectors of output channels: first their bias, then a row per input.

use super::{Pixels, SimdLevel};

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
            // The last 512-bit vector would be half repeats or more: 8, 24, 40, 56 or 72 channels. 256-bit ones reach
            // nine tenths of its speed, so they win from one lane in ten on.
            SimdLevel::Avx512 if (1..=8).contains(&(outputs % 16)) && outputs < 80 => (8, 3),
            SimdLevel::Avx512 => (16, 3),
            SimdLevel::Avx2 => (8, 2),
            SimdLevel::Neon => (4, 3),
            _ => (4, 2),
        };
        Self { lanes, vectors, outputs, blocked }
    }

    pub(super) fn lanes(self) -> usize {
        self.lanes
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

    /// The first channel of a vector.
    pub(super) fn channel(self, vector: usize) -> usize {
        let most = if self.blocked { usize::MAX } else { self.outputs.saturating_sub(self.lanes) };
        (vector * self.lanes).min(most)
    }

    pub(super) fn total(self) -> usize {
        self.outputs.div_ceil(self.lanes)
    }

    /// Floats of the packed weights: every panel's bias and rows.
    pub(super) fn packed_len(self, inputs: usize) -> usize {
        (inputs + 1) * self.total() * self.lanes
    }

    /// The panels of packed weights.
    pub(super) fn parts(self, inputs: usize, packed: &mut [f32]) -> impl Iterator<Item = Panel<'_>> {
        let (mut vector, mut rest) = (0, packed);
        core::iter::from_fn(move || {
            let vectors = self.next(self.total() - vector);
            let (packed, tail) = core::mem::take(&mut rest).split_at_mut((inputs + 1) * vectors * self.lanes);
            let panel = Panel { panels: self, vector, vectors, packed };
            (vector, rest) = (vector + vectors, tail);
            (vectors > 0).then_some(panel)
        })
    }
}

/// One panel of packed weights, to be filled.
#[derive(Debug)]
pub struct Panel<'a> {
    panels: Panels,
    /// The first of its vectors, and their number.
    vector: usize,
    vectors: usize,
    packed: &'a mut [f32],
}

impl Panel<'_> {
    /// Packs its part of `weight [inputs, outputs]` and `bias [outputs]` (zeros if `None`).
    ///
    /// # Panics
    ///
    /// If the panel is of weights of another size.
    pub fn pack(self, weight: Pixels<'_, f32>, bias: Option<&[f32]>) {
        let Self { panels, vector, vectors, packed } = self;
        assert_eq!(packed.len(), (weight.count() + 1) * vectors * panels.lanes, "a panel of another weight");
        for (k, row) in packed.chunks_exact_mut(vectors * panels.lanes).enumerate() {
            let from = match k.checked_sub(1) {
                Some(k) => Some(&weight.data[k * weight.pitch()..]),
                None => bias,
            };
            for (v, row) in row.chunks_exact_mut(panels.lanes).enumerate() {
                let channel = panels.channel(vector + v);
                let columns = panels.lanes.min(panels.outputs - channel);
                row[columns..].fill(0.0);
                match from.map(|from| &from[channel..][..columns]) {
                    // Of a length that the compiler knows: without a call.
                    Some(from) if columns == 16 => row[..16].copy_from_slice(&from[..16]),
                    Some(from) => row[..columns].copy_from_slice(from),
                    None => row[..columns].fill(0.0),
                }
            }
        }
    }

    /// Packs its part of `weight [outputs, inputs]`, without bias.
    ///
    /// # Panics
    ///
    /// As [`Panel::pack`].
    pub fn pack_transposed(self, weight: Pixels<'_, f32>) {
        /// Rows of the panel that stay in the first-level cache while its lanes are filled one by one.
        const ROWS: usize = 64;
        let Self { panels, vector, vectors, packed } = self;
        let (inputs, width) = (weight.channels, vectors * panels.lanes);
        assert_eq!((weight.count(), packed.len()), (panels.outputs, (inputs + 1) * width), "a panel of another weight");
        let (bias, rows) = packed.split_at_mut(width);
        bias.fill(0.0);
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
