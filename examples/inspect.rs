//! Shows what a network is made of, and what the machine runs it with.

mod common;

use std::io::{Write, stdout};
use std::process::ExitCode;

use common::{Model, Result};
use mobilenet::SimdLevel;
use mobilenet::layers::Initializer;

const HELP: &str = "\
Shows layers, their kernels, output shapes, parameters and multiply-adds of a network, and the SIMD levels of this machine.

  --model NAME         v1, v2, or with alpha in per cent, such as v2_035 (default v2)
  --alpha A            width multiplier, any positive number (default 1)
  --size N             input pixels (default 224)
  --source NAME        whose conventions: torchvision, timm, keras, slim, huggingface
                       (default: slim for v1, torchvision for v2)
  --help               this text";

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::prelude::*;
    let (mut model, mut alpha, mut size, mut source): (Model, _, _, _) = ("v2".parse()?, None, 224, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("model") => model = parser.value()?.parse()?,
            Long("alpha") => alpha = Some(parser.value()?.parse()?),
            Long("size") => size = parser.value()?.parse()?,
            Long("source") => source = Some(parser.value()?.parse()?),
            Long("help") | Short('h') => {
                writeln!(stdout(), "{HELP}")?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    model.alpha = alpha.unwrap_or(model.alpha);

    let net = model.build(source, Initializer::Zeros)?;
    let summary = net.summary([1, size, size, 3])?;
    writeln!(
        stdout(),
        "{:?}, alpha {}, {} conventions, {size} x {size}\n",
        net.architecture(),
        model.alpha,
        net.source()
    )?;
    writeln!(stdout(), "{summary}\n")?;
    let available: Vec<_> = SimdLevel::available().map(SimdLevel::name).collect();
    writeln!(stdout(), "SIMD level in use: {} (this machine has {})", SimdLevel::detect(), available.join(", "))?;
    Ok(ExitCode::SUCCESS)
}
