//! Shows what a network compiles to, and where a run's time goes: `cargo run --release --example profile`.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;

use common::{Model, Result, Timing};
use mobilenet::layers::Initializer;
use mobilenet::{CompileOptions, Layer};

const HELP: &str = "\
Shows the steps that a network compiles to, their kernels and buffers, then the time of each with a bar.

  --model NAME         v1, v2, or with alpha in per cent, such as v2_035 (default v2)
  --size N             input pixels (default 224)
  --threads N          (default 1)
  --level NAME         scalar, sse2, sse4.2, avx2, avx512, neon, simd128 (default: the machine's best)
  --runs R             times are medians of so many runs (default 50)
  --help               this text";

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let mut size = 224;
    let timing = Timing::new("v2", 50).read(HELP, |name, parser| {
        if name == "size" {
            size = parser.value()?.parse()?;
        }
        Ok(name == "size")
    })?;
    let Some(timing) = timing else { return Ok(ExitCode::SUCCESS) };
    let net = timing.model.parse::<Model>()?.build(None, Initializer::Timm)?;
    let mut engine = net.compile([1, size, size, 3], &CompileOptions::new().runtime(timing.runtime()?))?;
    let image = common::pattern(1, size)?;
    writeln!(stdout(), "{}\n", engine.plan())?;
    writeln!(stdout(), "{}", engine.profile(image.view(), timing.runs)?)?;
    Ok(ExitCode::SUCCESS)
}
