//! Where a run's time goes.

use std::fmt;
use std::time::{Duration, Instant};
use std::vec::Vec;

use ndarray::ArrayView4;

use super::report::PlanRow;
use super::{Engine, contiguous};
use crate::{Error, Result};

/// Time of every step of a compiled network; `Display` prints it as a table.
#[derive(Clone, Debug)]
pub struct Profile {
    /// In the order they run.
    pub rows: Vec<ProfileRow>,
}

/// One step of a [`Profile`].
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// What it is.
    pub step: PlanRow,
    /// Its time, the median over the runs.
    pub time: Duration,
}

impl ProfileRow {
    /// Billions of floating-point operations a second, two for each multiply-add.
    #[must_use]
    pub fn gflops(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { 2e-9 * self.step.multiply_adds as f64 / seconds } else { 0.0 }
    }
}

impl Profile {
    /// The sum of all steps.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.rows.iter().map(|row| row.time).sum()
    }

    /// The part of the total, 0 to 1, that a row took.
    #[must_use]
    pub fn share(&self, row: &ProfileRow) -> f64 {
        let total = self.total().as_secs_f64();
        if total > 0.0 { row.time.as_secs_f64() / total } else { 0.0 }
    }
}

impl Engine {
    /// Times every step of a run on one image: the median of `runs` runs, after one that warms up.
    ///
    /// # Errors
    ///
    /// If the input is not one image `[1, H, W, C]`, a layer of the user's fails, or `runs` is 0.
    pub fn profile(&mut self, input: ArrayView4<'_, f32>, runs: usize) -> Result<Profile> {
        let [h, w, c] = self.plan.input;
        let found: crate::Shape = input.dim().into();
        if found != [1, h, w, c] {
            return Err(Error::shape("profile", "input", &found, format_args!("[1, {h}, {w}, {c}]")));
        }
        if runs == 0 {
            return Err(Error::invalid("profile", "runs", runs, "at least 1"));
        }
        let input = contiguous(input);
        let mut output = vec![0.0; self.plan.output.iter().product()];
        let mut times = vec![Vec::new(); self.plan.steps.len()];
        let Self { plan, runtime, arenas, .. } = self;
        let arena = arenas[0].as_mut_slice();
        runtime.install_awake(|| {
            for run in 0..=runs {
                let mut begin = Instant::now();
                plan.run(runtime, plan.threads > 1, arena, &input, &mut output, |step| {
                    if run > 0 {
                        times[step].push(begin.elapsed());
                    }
                    begin = Instant::now();
                })?;
            }
            Ok(())
        })?;
        let rows = plan.steps.iter().zip(times).map(|(step, mut times)| {
            times.sort_unstable();
            ProfileRow { step: PlanRow::of(step, plan.level), time: times[runs / 2] }
        });
        Ok(Profile { rows: rows.collect() })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24} {:52} {:>9} {:>9} {:>8} {:>7}", "layer", "kernels", "us", "MMAdds", "GFLOP/s", "share")?;
        for row in &self.rows {
            let share = self.share(row);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
            let bar = "█".repeat((share * 100.0).round() as usize);
            writeln!(
                f,
                "{:24} {:52} {:>9.1} {:>9.2} {:>8.1} {:>6.1}% {bar}",
                row.step.name,
                row.step.kernel,
                row.time.as_secs_f64() * 1e6,
                row.step.multiply_adds as f64 / 1e6,
                row.gflops(),
                100.0 * share,
            )?;
        }
        let multiply_adds: u64 = self.rows.iter().map(|row| row.step.multiply_adds).sum();
        let total = self.total().as_secs_f64();
        let rate = if total > 0.0 { 2e-9 * multiply_adds as f64 / total } else { 0.0 };
        write!(
            f,
            "total {:.3} ms, {:.1} million multiply-adds, {rate:.1} GFLOP/s",
            total * 1e3,
            multiply_adds as f64 / 1e6
        )
    }
}
