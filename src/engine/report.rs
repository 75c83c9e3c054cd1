//! What a compiled network consists of, as a table.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::plan::Plan;
use super::step::{Place, Step, Work};
use crate::{Shape, SimdLevel};

/// The steps of a compiled network; `Display` prints them as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanTable {
    /// In the order they run.
    pub rows: Vec<PlanRow>,
    /// Bytes of packed weights.
    pub weight_bytes: usize,
    /// Bytes of all intermediate maps and scratch of one image: the peak, as buffers share their places.
    pub activation_bytes: usize,
}

/// One step of a [`PlanTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// The first layer that it computes.
    pub name: String,
    /// The kernels it consists of, joined by `+` when fused, and the SIMD level.
    pub kernel: String,
    /// How it is run: by `rows`, by `channels`, or the plain operator.
    pub form: String,
    /// Shape of its output.
    pub output: Shape,
    /// Multiplications that are each followed by an addition.
    pub multiply_adds: u64,
    /// Parts that may run on threads at once.
    pub parts: usize,
    /// Bytes of its output, with padding.
    pub output_bytes: usize,
    /// Bytes of scratch, of all parts.
    pub scratch_bytes: usize,
}

impl PlanTable {
    pub(super) fn of(plan: &Plan) -> Self {
        let bytes = |floats: usize| floats * size_of::<f32>();
        Self {
            rows: plan.steps.iter().map(|step| PlanRow::of(step, plan.level)).collect(),
            weight_bytes: bytes(plan.weights.len()),
            activation_bytes: bytes(plan.arena_len),
        }
    }
}

impl PlanRow {
    pub(super) fn of(step: &Step, level: SimdLevel) -> Self {
        let bytes = |floats: usize| floats * size_of::<f32>();
        let [h, w] = step.output.format.size;
        let stored = step.output.place != Place::Output;
        let form = match &step.work {
            Work::Rows(fused) => alloc::format!("rows of {}", fused.strip.size[0]),
            work => alloc::format!("{work:?}"),
        };
        Self {
            name: step.name.clone(),
            kernel: alloc::format!("{}/{level}", step.kernel),
            form,
            output: [1, h, w, step.output.format.channels],
            multiply_adds: step.multiply_adds,
            parts: step.parts,
            output_bytes: if stored { bytes(step.output.format.len()) } else { 0 },
            scratch_bytes: bytes(step.scratch * step.parts),
        }
    }
}

impl fmt::Display for PlanTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:24} {:52} {:10} {:>16} {:>9} {:>5} {:>9} {:>9}",
            "layer", "kernels", "form", "output", "MMAdds", "parts", "output kB", "scratch"
        )?;
        for row in &self.rows {
            let [_, h, w, c] = row.output;
            writeln!(
                f,
                "{:24} {:52} {:10} {:>16} {:>9.2} {:>5} {:>9.0} {:>9.0}",
                row.name,
                row.kernel,
                row.form,
                alloc::format!("{h} x {w} x {c}"),
                row.multiply_adds as f64 / 1e6,
                row.parts,
                row.output_bytes as f64 / 1e3,
                row.scratch_bytes as f64 / 1e3,
            )?;
        }
        let [weights, activations] = [self.weight_bytes, self.activation_bytes].map(|bytes| bytes as f64 / 1e6);
        write!(f, "weights {weights:.2} MB, activations {activations:.2} MB at their peak")
    }
}
