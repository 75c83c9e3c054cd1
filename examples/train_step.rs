//! The time and memory of a training step on random images: prints one line with `median_ms=` and
//! `peak_mb=`, as `benches/peers/train.py` reads it.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use common::{Model, Result};
use mobilenet::layers::Initializer;
use mobilenet::train::{CrossEntropy, Sgd, Trainer};
use mobilenet::{Layer, Runtime, Tensor};

const HELP: &str = "\
Times training steps on random images: forward, loss, backward, and SGD with momentum.

  --model NAME         such as v1_100, v2_100, v2_035 (default v2_100)
  --batch N            images of a step (default 16)
  --size S             rows and columns of an image (default 224)
  --threads N          (default 2)
  --steps N            timed steps after 1 that warms up (default 5)
  --frozen             the head alone learns
  --help               this text";

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let (mut name, mut frozen) = (String::from("v2_100"), false);
    let (mut batch, mut size, mut threads, mut steps) = (16, 224, 2, 5_usize);
    let goes_on = common::read_options(HELP, |option, parser| {
        match option {
            "model" => name = parser.value()?.parse()?,
            "batch" => batch = parser.value()?.parse()?,
            "size" => size = parser.value()?.parse()?,
            "threads" => threads = parser.value()?.parse()?,
            "steps" => steps = parser.value()?.parse()?,
            "frozen" => frozen = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !goes_on {
        return Ok(ExitCode::SUCCESS);
    }
    if steps == 0 {
        return Err("--steps is 0, expected at least 1".into());
    }
    let mut net = name.parse::<Model>()?.build(None, Initializer::default())?;
    if frozen {
        net.freeze_backbone();
    }
    let classes = net.output_shape([1, size, size, 3])?[3];
    let optimizer = Sgd::new(0.01).momentum(0.9).weight_decay(4e-5);
    let mut trainer = Trainer::new(net, optimizer, CrossEntropy::new()).runtime(Runtime::new().threads(threads)?);
    let mut state = 1_u32;
    let images = Tensor::from_fn([batch, size, size, 3], |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    })?;
    let labels: Vec<usize> = (0..batch).map(|image| image * 37 % classes).collect();
    trainer.step(&images, &labels)?;
    let mut times = Vec::with_capacity(steps.min(1000));
    for _ in 0..steps {
        let start = Instant::now();
        trainer.step(&images, &labels)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let peak = peak_megabytes().map_or_else(|| "?".into(), |peak| peak.to_string());
    writeln!(stdout(), "median_ms={:.1} peak_mb={peak}", times[times.len() / 2])?;
    Ok(ExitCode::SUCCESS)
}

/// The most memory this process ever had, where Linux tells.
fn peak_megabytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kilobytes| kilobytes / 1024)
}
