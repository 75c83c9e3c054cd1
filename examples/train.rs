//! Trains a small network from nothing: `cargo run --release --example train`.
//!
//! Without arguments it learns to tell generated coloured shapes apart, in two minutes; with `--data FOLDER`, one's own
//! photos.

mod common;
mod training;

use std::io::{Write, stdout};
use std::process::ExitCode;

use common::{Model, Result};
use mobilenet::data::Augmentation;
use mobilenet::preprocess::Preprocess;
use training::{Interrupt, Options, Run, Task, VALIDATION};

const HELP: &str = "\
Trains a network from nothing; on generated images of coloured shapes unless told otherwise.

  --model NAME         v1, v2, or with alpha in per cent, such as v2_035 (default v1_025)
  --alpha A            width multiplier, any positive number
  --size N             pixels of the network's input (default 64)";

/// Of each generated class.
const IMAGES_PER_CLASS: usize = 400;

/// Most pixels of a side of a generated image, which is resized to what the network takes.
const MOST_SIDE: u32 = 128;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let (mut model, mut size) = ("v1_025".parse::<Model>()?, 64);
    let options = Options::new(32, 32, 3e-3, "target/train").read(HELP, |name, parser| {
        match name {
            "model" => model = parser.value()?.parse()?,
            "alpha" => model.alpha = parser.value()?.parse()?,
            "size" => size = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(options) = options else { return Ok(ExitCode::SUCCESS) };
    let interrupt = Interrupt::listen()?;
    let images = options.images(IMAGES_PER_CLASS, size.min(MOST_SIDE))?;
    let net = model.fresh(images.classes().len(), options.seed)?;
    let preprocess = Preprocess::of(net.source(), net.architecture()).size(size);
    let (training, validation) = images.split(VALIDATION, options.seed)?;
    let augmentation = Augmentation::new().resized_crop(0.7..=1.0).flip(0.5);
    let task = Task { net, training, validation, preprocess, augmentation };

    if let Some(evaluation) = Run::new(task, &options, &options.out)?.finish(&interrupt)? {
        writeln!(stdout(), "accuracy {:.2} %, files in {}", 100.0 * evaluation.top(1), options.out.display())?;
    }
    Ok(interrupt.exit_code())
}
