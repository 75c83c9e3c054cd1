//! Shows what a network compiles to, and where a run's time goes: `cargo run --release --example profile`.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;

use common::{Model, Result};
use mobilenet::layers::Initializer;
use mobilenet::{CompileOptions, Layer, Runtime, SimdLevel};

const HELP: &str = "\
Shows the steps that a network compiles to, their kernels and buffers, then the time of each with a bar.

  --model NAME         v1, v2, or with alpha in per cent, such as v2_035 (default v2)
  --size N             input pixels (default 224)
  --threads N          (default 1)
  --level NAME         scalar, sse2, sse4.2, avx2, avx512, neon, simd128 (default: the machine's best)
  --runs R             times are medians of so many runs (default 50)
  --help               this text";

/// Few enough that their times fit in memory.
const MOST_RUNS: usize = 100_000;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let (mut model, mut size, mut threads, mut runs): (Model, _, _, _) = ("v2".parse()?, 224, 1, 50);
    let mut level = SimdLevel::detect();
    let goes_on = common::read_options(HELP, |name, parser| {
        match name {
            "model" => model = parser.value()?.parse()?,
            "size" => size = parser.value()?.parse()?,
            "threads" => threads = parser.value()?.parse()?,
            "level" => level = parser.value()?.parse()?,
            "runs" => runs = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !goes_on {
        return Ok(ExitCode::SUCCESS);
    }
    common::check_runs(runs, MOST_RUNS)?;
    let net = model.build(None, Initializer::Timm)?;
    let runtime = Runtime::new().level(level)?.threads(threads)?;
    let mut engine = net.compile([1, size, size, 3], &CompileOptions::new().runtime(runtime))?;
    let image = common::pattern(size)?;
    writeln!(stdout(), "{}\n", engine.plan())?;
    writeln!(stdout(), "{}", engine.profile(image.view(), runs)?)?;
    Ok(ExitCode::SUCCESS)
}
