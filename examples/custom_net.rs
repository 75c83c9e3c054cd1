//! A network of one's own, from the same blocks the published ones are made of.
//!
//! Small images and few classes: a stem that keeps the resolution, wide kernels late, a head with a dropout.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use mobilenet::layers::{
    ConvBnRelu, DepthwiseSeparable, Dropout, GlobalAveragePool, InvertedResidual, Linear, Sequential, Summary,
};
use mobilenet::{Layer, Result, Tensor};

const HELP: &str = "\
Builds a small network from the crate's blocks and runs it on random 64 x 64 images.

  --seed N             seed of weights and images (default 7)
  --images N           images in the batch (default 4)
  --help               this text";

/// The widest map of an image takes 0.3 MB; a thousand of them fit any machine.
const MOST_IMAGES: usize = 1000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<(u32, usize)>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut seed, mut images) = (7, 4);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => seed = parser.value()?.parse()?,
            Long("images") => images = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some((seed, images)))
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let Some((seed, images)) = parse()? else {
        return Ok(writeln!(out, "{HELP}")?);
    };
    if !(1..=MOST_IMAGES).contains(&images) {
        return Err(format!("--images is {images}, expected 1 to {MOST_IMAGES}").into());
    }
    let seed = u64::from(seed);
    // Each layer gets a seed of its own, so that no two start alike.
    let net = Sequential::new()
        .push_named("stem", ConvBnRelu::<f32>::builder(3, 16).kernel_size(3).seed(seed).build()?)?
        .push(DepthwiseSeparable::builder(16, 24).stride(2).seed(seed + 1).build()?)
        .push(InvertedResidual::builder(24, 24).expand_ratio(3).seed(seed + 2).build()?)
        .push(InvertedResidual::builder(24, 40).expand_ratio(4).stride(2).kernel_size(5).seed(seed + 3).build()?)
        .push(InvertedResidual::builder(40, 40).expand_ratio(4).kernel_size(7).seed(seed + 4).build()?)
        .push_named("pool", GlobalAveragePool)?
        .push_named("dropout", Dropout::new(0.1)?)?
        .push_named("classifier", Linear::builder(40, 5).seed(seed + 5).build()?)?;
    writeln!(out, "{}\n", Summary::of(&net, [images, 64, 64, 3])?)?;

    let logits = net.forward(&noise([images, 64, 64, 3], seed)?)?;
    for (image, row) in logits.rows().outer_iter().enumerate() {
        writeln!(out, "image {image}: logits {row:+.4}")?;
    }
    Ok(())
}

/// Values from -1 to 1 (a linear congruential generator is random enough here).
fn noise(shape: [usize; 4], seed: u64) -> Result<Tensor<f32>> {
    let mut state = seed;
    Tensor::from_fn(shape, |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}
