//! What the examples' command lines share: options, networks by name, and errors in a few lines.
#![allow(dead_code, reason = "each example uses its part")]

use std::error::Error;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::str::FromStr;

use mobilenet::layers::Initializer;
use mobilenet::models::Network;
use mobilenet::{Architecture, MobileNetV1, MobileNetV2, Runtime, SimdLevel, Tensor, WeightSource};

pub(crate) type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Prints an error; exit code 1. Weights that do not fit have a line for each tensor: the first few say enough.
pub(crate) fn report(outcome: Result<ExitCode>) -> ExitCode {
    const LINES: usize = 12;
    outcome.unwrap_or_else(|error| {
        let text = error.to_string();
        eprintln!("error: {}", text.lines().take(LINES).collect::<Vec<_>>().join("\n"));
        match text.lines().skip(LINES).count() {
            0 => {}
            more => eprintln!("  and {more} more"),
        }
        ExitCode::FAILURE
    })
}

/// Reads a command line of options alone. `set` takes the value of an option of this name, if it knows it. Returns
/// `false` if help was asked for, which is then printed.
pub(crate) fn read_options(help: &str, mut set: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool>) -> Result<bool> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => {
                writeln!(stdout(), "{help}")?;
                return Ok(false);
            }
            Long(name) => {
                let name = name.to_owned();
                if !set(&name, &mut parser)? {
                    return Err(Long(&name).unexpected().into());
                }
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(true)
}

/// Few enough that their times fit in memory.
const MOST_RUNS: usize = 100_000;

/// What is timed, and how.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// A name that parses as [`Model`].
    pub(crate) model: String,
    pub(crate) threads: usize,
    pub(crate) level: SimdLevel,
    pub(crate) runs: usize,
}

impl Timing {
    pub(crate) fn new(model: &str, runs: usize) -> Self {
        Self { model: model.into(), threads: 1, level: SimdLevel::detect(), runs }
    }

    /// As [`read_options`]. Returns nothing if help was asked for.
    pub(crate) fn read(
        mut self,
        help: &str,
        mut set: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool>,
    ) -> Result<Option<Self>> {
        use lexopt::ValueExt;
        let goes_on = read_options(help, |name, parser| {
            match name {
                "model" => self.model = parser.value()?.parse()?,
                "threads" => self.threads = parser.value()?.parse()?,
                "level" => self.level = parser.value()?.parse()?,
                "runs" => self.runs = parser.value()?.parse()?,
                _ => return set(name, parser),
            }
            Ok(true)
        })?;
        if !(1..=MOST_RUNS).contains(&self.runs) {
            return Err(format!("--runs is {}, expected 1 to {MOST_RUNS}", self.runs).into());
        }
        Ok(goes_on.then_some(self))
    }

    pub(crate) fn runtime(&self) -> Result<Runtime> {
        Ok(Runtime::new().level(self.level)?.threads(self.threads)?)
    }
}

/// Images without symmetry, between -1 and 1: the first is the one that `benches/peers/peer.py` has.
pub(crate) fn pattern(count: usize, size: usize) -> Result<Tensor<f32>> {
    let value = |[n, h, w, c]: [usize; 4]| ((n * 13 + h * 31 + w * 17 + c * 7) % 255) as f32 / 127.0 - 1.0;
    Ok(Tensor::from_fn([count, size, size, 3], value)?)
}

/// A family and a width: `v1_100`, `v2_035`; `v1` and `v2` mean alpha 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) architecture: Architecture,
    pub(crate) alpha: f64,
}

impl FromStr for Model {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("unknown model {name:?}, expected v1, v2, or with alpha in per cent: v1_100, v2_035");
        let (family, percent) = name.split_once('_').unwrap_or((name, "100"));
        let architecture = match family {
            "v1" => Architecture::MobileNetV1,
            "v2" => Architecture::MobileNetV2,
            _ => return Err(unknown()),
        };
        let percent: u16 = percent.parse().map_err(|_| unknown())?;
        Ok(Self { architecture, alpha: f64::from(percent) / 100.0 })
    }
}

impl Model {
    /// Builds it for the published ImageNet classes of a source; without one, with the builder's defaults.
    pub(crate) fn build(self, source: Option<WeightSource>, initializer: Initializer) -> Result<Network<f32>> {
        // The builders share their setters, not a trait.
        macro_rules! build {
            ($network:ty) => {{
                let mut builder = <$network>::builder().alpha(self.alpha).initializer(initializer);
                if let Some(source) = source {
                    builder = builder.source(source).classes(source.imagenet_classes());
                }
                builder.build()?.into()
            }};
        }
        Ok(match self.architecture {
            Architecture::MobileNetV1 => build!(MobileNetV1::<f32>),
            Architecture::MobileNetV2 => build!(MobileNetV2::<f32>),
        })
    }

    /// Builds it with fresh weights for so many classes, as torchvision would: the running statistics of other sources
    /// follow too slowly for a short training.
    pub(crate) fn fresh(self, classes: usize, seed: u64) -> Result<Network<f32>> {
        macro_rules! fresh {
            ($network:ty) => {
                <$network>::builder().source(WeightSource::Torchvision).alpha(self.alpha).classes(classes).seed(seed)
            };
        }
        Ok(match self.architecture {
            Architecture::MobileNetV1 => fresh!(MobileNetV1::<f32>).build()?.into(),
            Architecture::MobileNetV2 => fresh!(MobileNetV2::<f32>).build()?.into(),
        })
    }
}
