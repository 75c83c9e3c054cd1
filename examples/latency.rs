//! Times one image through a network: prints one line with `median_ms=`.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use common::{Model, Result};
use mobilenet::layers::Initializer;
use mobilenet::{Layer, Runtime, SimdLevel, Tensor};

const HELP: &str = "\
Times one image of 224 x 224 through a network with random weights.

  --model NAME         such as v1_100, v2_100, v2_035 (default v2_100)
  --threads N          (default 1)
  --runs R             timed runs after 5 that warm up (default 60)
  --level NAME         scalar, sse2, sse4.2, avx2, avx512, neon, simd128 (default: the machine's best)
  --help               this text";

const WARM_UP: usize = 5;

/// Hours on any machine, and few enough that their times fit in memory.
const MOST_RUNS: usize = 1_000_000;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::prelude::*;
    let (mut name, mut threads, mut runs, mut level) = (String::from("v2_100"), 1, 60, SimdLevel::detect());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("model") => name = parser.value()?.parse()?,
            Long("threads") => threads = parser.value()?.parse()?,
            Long("runs") => runs = parser.value()?.parse()?,
            Long("level") => level = parser.value()?.parse()?,
            Long("help") | Short('h') => {
                writeln!(stdout(), "{HELP}")?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    if !(1..=MOST_RUNS).contains(&runs) {
        return Err(format!("--runs is {runs}, expected 1 to {MOST_RUNS}").into());
    }

    let runtime = Runtime::new().level(level)?.threads(threads)?;
    let net = name.parse::<Model>()?.build(None, Initializer::Timm)?;
    // A pattern without symmetry, between -1 and 1.
    let image =
        Tensor::from_fn([1, 224, 224, 3], |[_, h, w, c]| ((h * 31 + w * 17 + c * 7) % 255) as f32 / 127.0 - 1.0)?;
    let mut times = Vec::with_capacity(runs);
    for run in 0..WARM_UP + runs {
        let start = Instant::now();
        let logits = net.forward_with(&image, &runtime)?;
        let time = start.elapsed().as_secs_f64() * 1e3;
        std::hint::black_box(logits);
        if run >= WARM_UP {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    let (min, median, p90) = (times[0], times[runs / 2], times[(runs * 9 / 10).min(runs - 1)]);
    writeln!(
        stdout(),
        "{name} level={level} threads={threads} runs={runs} median_ms={median:.3} min_ms={min:.3} p90_ms={p90:.3}"
    )?;
    Ok(ExitCode::SUCCESS)
}
