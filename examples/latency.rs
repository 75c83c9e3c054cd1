//! Times one image through a compiled network: prints a line with `median_ms=`, and with `max_diff=`, the largest
//! difference from the layers' own forward, relative to the largest output; another of a batch, if that is asked for.

mod common;

use std::io::{Write, stdout};
use std::num::NonZero;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Model, Result, Timing};
use mobilenet::layers::Initializer;
use mobilenet::{CompileOptions, Engine, Layer};

const HELP: &str = "\
Times one image of 224 x 224 through a compiled network with random weights, and compares its output with the layers'.

  --model NAME         such as v1_100, v2_100, v2_035 (default v2_100)
  --threads N          (default 1)
  --runs R             timed runs after 5 that warm up (default 60)
  --level NAME         scalar, sse2, sse4.2, avx2, avx512, neon, simd128 (default: the machine's best)
  --batch N            also times N different images as a batch and one by one, in turn; per image
  --help               this text";

/// Rows and columns of an image.
const SIZE: usize = 224;

const WARM_UP: usize = 5;

/// Difference from the layers' forward that is an error, relative to the largest output.
const MOST_DIFFERENCE: f32 = 1e-4;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let mut batch = None;
    let timing = Timing::new("v2_100", 60).read(HELP, |name, parser| {
        if name == "batch" {
            batch = Some(parser.value()?.parse()?);
        }
        Ok(name == "batch")
    })?;
    let Some(timing) = timing else { return Ok(ExitCode::SUCCESS) };
    let runtime = timing.runtime()?;
    let Timing { model: name, threads, level, runs } = timing;
    let net = name.parse::<Model>()?.build(None, Initializer::Timm)?;
    let image = common::pattern(1, SIZE)?;
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
    if let Some(count) = batch {
        let [together, apart] = time_batch(&mut engine, count, runs)?;
        writeln!(
            stdout(),
            "batch={count} batch_ms={together:.3} one_by_one_ms={apart:.3} ratio={:.3}",
            together / apart
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Median milliseconds for an image of so many: as a batch, and one by one.
fn time_batch(engine: &mut Engine, count: NonZero<usize>, runs: usize) -> Result<[f64; 2]> {
    let count = count.get();
    let images = common::pattern(count, SIZE)?;
    let lens = [images.as_slice().len() / count, engine.output_len()];
    let mut outputs = vec![0.0; count * lens[1]];
    let mut times = [Vec::with_capacity(runs), Vec::with_capacity(runs)];
    for run in 0..WARM_UP + runs {
        let start = Instant::now();
        engine.run_batch(images.view(), &mut outputs)?;
        let middle = Instant::now();
        for (image, output) in images.as_slice().chunks_exact(lens[0]).zip(outputs.chunks_exact_mut(lens[1])) {
            engine.run_slice(image, output)?;
        }
        let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
        let apart = middle.elapsed();
        if run >= WARM_UP {
            times[0].push(each(middle - start));
            times[1].push(each(apart));
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[runs / 2]
    }))
}
