//! Times one image through a compiled network: prints one line with `median_ms=`, and with `max_diff=`, the largest
//! difference from the layers' own forward, relative to the largest output.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use common::{Model, Result, Timing};
use mobilenet::layers::Initializer;
use mobilenet::{CompileOptions, Layer};

const HELP: &str = "\
Times one image of 224 x 224 through a compiled network with random weights, and compares its output with the layers'.

  --model NAME         such as v1_100, v2_100, v2_035 (default v2_100)
  --threads N          (default 1)
  --runs R             timed runs after 5 that warm up (default 60)
  --level NAME         scalar, sse2, sse4.2, avx2, avx512, neon, simd128 (default: the machine's best)
  --help               this text";

const WARM_UP: usize = 5;

/// Difference from the layers' forward that is an error, relative to the largest output.
const MOST_DIFFERENCE: f32 = 1e-4;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    let Some(timing) = Timing::new("v2_100", 60).read(HELP, |_, _| Ok(false))? else { return Ok(ExitCode::SUCCESS) };
    let runtime = timing.runtime()?;
    let Timing { model: name, threads, level, runs } = timing;
    let net = name.parse::<Model>()?.build(None, Initializer::Timm)?;
    let image = common::pattern(224)?;
    let begin = Instant::now();
    let mut engine = net.compile(image.shape(), &CompileOptions::new().runtime(runtime.clone()))?;
    let compile = begin.elapsed().as_secs_f64() * 1e3;
    let mut output = vec![0.0; engine.output_len()];
    let mut times = Vec::with_capacity(runs);
    for run in 0..WARM_UP + runs {
        let start = Instant::now();
        engine.run(image.view(), &mut output)?;
        let time = start.elapsed().as_secs_f64() * 1e3;
        if run >= WARM_UP {
            times.push(time);
        }
    }
    let expected = net.forward_with(&image, &runtime)?;
    let size = expected.as_slice().iter().fold(0.0_f32, |size, value| size.max(value.abs()));
    let differences = output.iter().zip(expected.as_slice()).map(|(found, expected)| (found - expected).abs() / size);
    // A NaN must not get lost.
    let difference =
        differences.fold(0.0, |most: f32, value| if most.is_nan() || value <= most { most } else { value });
    times.sort_by(f64::total_cmp);
    let (min, median, p90) = (times[0], times[runs / 2], times[(runs * 9 / 10).min(runs - 1)]);
    writeln!(
        stdout(),
        "{name} level={level} threads={threads} runs={runs} median_ms={median:.3} min_ms={min:.3} p90_ms={p90:.3} \
         compile_ms={compile:.1} max_diff={difference:.1e}"
    )?;
    if difference.is_nan() || difference > MOST_DIFFERENCE {
        return Err(format!("max_diff is {difference:e}, expected at most {MOST_DIFFERENCE:e}").into());
    }
    Ok(ExitCode::SUCCESS)
}
