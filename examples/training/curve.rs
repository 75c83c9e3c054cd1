//! The learning curve: a row for each step in a CSV file, and a picture of it.
//!
//! The rows tell where in its epoch a run is, so a resumed one reads them back; rows after the checkpoint come anew.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mobilenet::train::Evaluation;
use plotters::prelude::*;

use crate::common::Result;

const HEADER: &str = "step,epoch,loss,validation_loss,validation_accuracy";

/// What one step came to; the last of an epoch is followed by a validation.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) epoch: u64,
    pub(crate) loss: f64,
    pub(crate) validation: Option<Validation>,
}

#[derive(Clone, Copy)]
pub(crate) struct Validation {
    pub(crate) loss: f64,
    /// From 0 to 1.
    pub(crate) accuracy: f64,
}

impl From<&Evaluation> for Validation {
    fn from(evaluation: &Evaluation) -> Self {
        Self { loss: evaluation.loss(), accuracy: evaluation.top(1) }
    }
}

/// All steps so far; step 1 is the first.
pub(crate) struct Curve {
    folder: PathBuf,
    points: Vec<Point>,
}

impl Curve {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), points: Vec::new() }
    }

    /// Reads back the first `steps` steps.
    pub(crate) fn read(folder: &Path, steps: u64) -> Result<Self> {
        let mut curve = Self::new(folder);
        let path = curve.csv();
        let malformed = |line: &str| format!("{}: {line:?} is no row of {HEADER}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for (step, line) in (1..=steps).zip(text.lines().skip(1)) {
            curve.points.push(parse(line, step).ok_or_else(|| malformed(line))?);
        }
        if (curve.points.len() as u64) < steps {
            return Err(format!("{}: ends before step {steps} of the checkpoint", path.display()).into());
        }
        Ok(curve)
    }

    pub(crate) fn push(&mut self, epoch: u64, loss: f64) {
        self.points.push(Point { epoch, loss, validation: None });
    }

    /// Gives the last step its validation.
    pub(crate) fn validate(&mut self, validation: Validation) {
        if let Some(point) = self.points.last_mut() {
            point.validation = Some(validation);
        }
    }

    /// The epoch to go on with, and how many steps it has had.
    pub(crate) fn place(&self) -> (u64, usize) {
        match self.points.last() {
            None => (0, 0),
            Some(Point { epoch, validation: Some(_), .. }) => (epoch + 1, 0),
            Some(Point { epoch, .. }) => {
                (*epoch, self.points.iter().rev().take_while(|point| point.epoch == *epoch).count())
            }
        }
    }

    /// The last validation.
    pub(crate) fn validation(&self) -> Option<Validation> {
        self.points.iter().rev().find_map(|point| point.validation)
    }

    fn csv(&self) -> PathBuf {
        self.folder.join("curve.csv")
    }

    /// Writes `curve.csv` and `curve.svg`.
    pub(crate) fn save(&self) -> Result<()> {
        let mut csv = format!("{HEADER}\n");
        for (step, Point { epoch, loss, validation }) in (1..).zip(&self.points) {
            write!(csv, "{step},{epoch},{loss},")?;
            match validation {
                Some(Validation { loss, accuracy }) => writeln!(csv, "{loss},{accuracy}")?,
                None => writeln!(csv, ",")?,
            }
        }
        replace(&self.csv(), &csv)?;
        replace(&self.folder.join("curve.svg"), &self.draw()?)
    }

    fn draw(&self) -> Result<String> {
        let steps = || (1_u32..).map(f64::from).zip(&self.points);
        let training: Vec<_> = steps().map(|(step, point)| (step, point.loss)).collect();
        let (mut losses, mut accuracies) = (Vec::new(), Vec::new());
        for (step, validation) in steps().filter_map(|(step, point)| Some((step, point.validation?))) {
            losses.push((step, validation.loss));
            accuracies.push((step, 100.0 * validation.accuracy));
        }
        // Before the first step there is nothing to draw, but an axis needs a length.
        let highest = training.iter().chain(&losses).map(|(_, loss)| *loss).fold(0.1, f64::max);

        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, (800, 700)).into_drawing_area();
        root.fill(&WHITE)?;
        let (above, below) = root.split_vertically(350);
        draw(
            &above,
            "loss",
            highest,
            &[("training", BLUE.mix(0.4), &training), ("validation", RED.to_rgba(), &losses)],
        )?;
        draw(&below, "accuracy, %", 100.0, &[("validation", RED.to_rgba(), &accuracies)])?;
        root.present()?;
        drop((root, above, below));
        Ok(svg)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A name, a colour, and values over steps.
type Line<'a> = (&'a str, RGBAColor, &'a [(f64, f64)]);

fn draw(area: &Area<'_>, title: &str, highest: f64, lines: &[Line<'_>]) -> Result<()> {
    let last = lines.iter().filter_map(|(_, _, values)| values.last()).map(|(step, _)| *step).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, 0.0..1.05 * highest)?;
    chart.configure_mesh().x_desc("step").y_desc(title).light_line_style(TRANSPARENT).draw()?;
    for (name, colour, values) in lines {
        let legend = |(x, y)| PathElement::new([(x, y), (x + 16, y)], *colour);
        chart.draw_series(LineSeries::new(values.iter().copied(), *colour))?.label(*name).legend(legend);
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}

fn parse(line: &str, step: u64) -> Option<Point> {
    let [first, epoch, loss, validation_loss, accuracy] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
    let validation = match (validation_loss, accuracy) {
        ("", "") => None,
        (loss, accuracy) => Some(Validation { loss: loss.parse().ok()?, accuracy: accuracy.parse().ok()? }),
    };
    let point = Point { epoch: epoch.parse().ok()?, loss: loss.parse().ok()?, validation };
    (first.parse() == Ok(step)).then_some(point)
}

/// Writes a file beside its place, then gives it its name: whoever reads it finds all of it.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    Ok(written.map_err(|error| format!("{}: {error}", path.display()))?)
}
