//! Turns published weights into a safetensors file with this crate's names, in full or half precision.
//!
//! The result needs no `--source` any more: it is written in it. The weights inside the crate were made with this.

mod common;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use common::{Model, Result};
use mobilenet::layers::Initializer;
use mobilenet::weights::Precision;
use mobilenet::{LoadMode, StateDict};

const HELP: &str = "\
Turns published weights into a safetensors file with this crate's names.

  --weights FILE       .safetensors or PyTorch .pth
  --source NAME        who published them: torchvision, timm, keras, slim, huggingface
  --model NAME         their network, such as v1_100 or v2_035; every tensor must fit it
  --half               round to half precision: half the size
  --out FILE           the file to write
  --help               this text";

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::prelude::*;
    let (mut weights, mut source, mut model, mut out) = (None::<PathBuf>, None, None::<Model>, None::<PathBuf>);
    let mut precision = Precision::Full;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("weights") => weights = Some(parser.value()?.into()),
            Long("source") => source = Some(parser.value()?.parse()?),
            Long("model") => model = Some(parser.value()?.parse()?),
            Long("half") => precision = Precision::Half,
            Long("out") => out = Some(parser.value()?.into()),
            Long("help") | Short('h') => {
                writeln!(stdout(), "{HELP}")?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let (weights, out) = (weights.ok_or("--weights is missing")?, out.ok_or("--out is missing")?);
    let model = model.ok_or("--model is missing")?;

    let state = StateDict::<f32>::open(&weights, source)?;
    let source = state.source().ok_or("the file does not say whose weights it has, and --source is missing")?;
    let mut net = model.build(Some(source), Initializer::Zeros)?;
    net.load(&state, LoadMode::Strict)?;
    let state = net.state_dict();
    state.save_as(&out, precision)?;

    let written = StateDict::<f32>::open(&out, None)?;
    let change = state.iter().zip(written.iter()).flat_map(|((_, before), (_, after))| before.iter().zip(after));
    let change = change.fold(0.0_f32, |most, (before, after)| most.max((before - after).abs()));
    let bytes = std::fs::metadata(&out)?.len();
    writeln!(
        stdout(),
        "{}: {} tensors of {source}, {bytes} bytes, largest change {change:e}",
        out.display(),
        written.len()
    )?;
    Ok(ExitCode::SUCCESS)
}
