//! Says what is on a photo: `cargo run --release --example classify`.
//!
//! Without arguments it takes two photos and the weights that come with the crate; with `--weights`, any published
//! file.

mod common;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Model, Result};
use mobilenet::layers::Initializer;
use mobilenet::preprocess::{Filter, Preprocess, Resize};
use mobilenet::pretrained::{self, imagenet_labels};
use mobilenet::{Classifier, LoadMode, Predictions, Runtime, StateDict, WeightSource};

const HELP: &str = "\
Says what is on photos, with MobileNetV2 and ImageNet weights that are in the crate.

  --image FILE...      JPEG or PNG photos (default: two that come with the crate)
  --top K              how many classes to print (default 5)
  --weights FILE       other ImageNet weights: .safetensors, .pth
  --source NAME        who published them: torchvision, timm, keras, slim, huggingface
                       (not needed for files that the example `convert` wrote)
  --model NAME         their network, such as v1_100 or v2_035
                       (default: v1_100 for slim and huggingface, else v2_100)
  --labels FILE        their classes, one to a line, as the example `finetune` writes them;
                       it shows the network whole photos, and so does this
  --help               this text";

const PHOTOS: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/images/chelsea.png"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/images/coffee.png"),
];

struct Options {
    images: Vec<PathBuf>,
    top: usize,
    weights: Option<PathBuf>,
    source: Option<WeightSource>,
    model: Option<Model>,
    labels: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    let Some(options) = parse()? else {
        writeln!(stdout(), "{HELP}")?;
        return Ok(ExitCode::SUCCESS);
    };
    let start = Instant::now();
    let (name, classifier) = classifier(&options)?;
    let level = Runtime::new().simd_level();
    writeln!(stdout(), "{name}, ready in {}; SIMD level {level}, 1 thread", milliseconds(start.elapsed()))?;

    let mut exit = ExitCode::SUCCESS;
    for path in &options.images {
        // One bad photo does not keep the others from being classified.
        if let Err(error) = classify(path, &classifier, options.top) {
            eprintln!("error: {error}");
            exit = ExitCode::FAILURE;
        }
    }
    Ok(exit)
}

fn parse() -> Result<Option<Options>> {
    use lexopt::prelude::*;
    let mut options = Options { images: Vec::new(), top: 5, weights: None, source: None, model: None, labels: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("image") => options.images.extend(parser.values()?.map(PathBuf::from)),
            Long("top") => options.top = parser.value()?.parse()?,
            Long("weights") => options.weights = Some(parser.value()?.into()),
            Long("source") => options.source = Some(parser.value()?.parse()?),
            Long("model") => options.model = Some(parser.value()?.parse()?),
            Long("labels") => options.labels = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(None),
            Value(image) => options.images.push(image.into()),
            Long(_) | Short(_) => return Err(argument.unexpected().into()),
        }
    }
    if options.weights.is_none() && (options.source.is_some() || options.model.is_some() || options.labels.is_some()) {
        return Err("--source, --model and --labels describe the file of --weights, which is missing".into());
    }
    if options.images.is_empty() {
        options.images = PHOTOS.map(PathBuf::from).into();
    }
    Ok(Some(options))
}

fn classifier(options: &Options) -> Result<(String, Classifier)> {
    let Some(weights) = &options.weights else {
        return Ok((String::from("MobileNetV2 1.0, weights from the crate"), pretrained::mobilenet_v2()?));
    };
    let state = StateDict::open(weights, options.source)?;
    let source = state.source().ok_or("the file does not say whose weights it has, and --source is missing")?;
    let model = match (options.model, source) {
        (Some(model), _) => model,
        (None, WeightSource::TfSlim | WeightSource::HuggingFace) => "v1_100".parse()?,
        (None, _) => "v2_100".parse()?,
    };
    let mut net = model.build(Some(source), Initializer::Zeros)?;
    let mut preprocess = Preprocess::of(source, model.architecture);
    let labels: Vec<String> = match &options.labels {
        None => imagenet_labels(source).map(Into::into).collect(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            preprocess = preprocess.resize(Resize::Whole { filter: Filter::Bilinear });
            text.lines().map(Into::into).collect()
        }
    };
    if options.labels.is_some() {
        net.replace_head(labels.len())?;
    }
    net.load(&state, LoadMode::Strict)?;
    let name = format!("{:?} {:?}, {source} weights from {}", model.architecture, model.alpha, weights.display());
    Ok((name, Classifier::new(net, preprocess, labels)?))
}

fn classify(path: &Path, classifier: &Classifier, top: usize) -> Result<()> {
    let start = Instant::now();
    let image = mobilenet::image::open(path)?;
    let decoded = start.elapsed();
    let input = classifier.preprocess().apply(&image)?;
    let preprocessed = start.elapsed();
    let predictions = classifier.classify_input(&input)?;
    let classified = start.elapsed();

    writeln!(stdout(), "\n{} ({} x {})", path.display(), image.width(), image.height())?;
    print(&predictions, top)?;
    writeln!(
        stdout(),
        "  decode {}, preprocess {}, classify {}",
        milliseconds(decoded),
        milliseconds(preprocessed.saturating_sub(decoded)),
        milliseconds(classified.saturating_sub(preprocessed))
    )?;
    Ok(())
}

fn print(predictions: &Predictions, top: usize) -> Result<()> {
    const WIDTH: f32 = 40.0;
    for hit in predictions.top(top) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to WIDTH")]
        let length = (hit.probability * WIDTH).round() as usize;
        writeln!(
            stdout(),
            "  {:5.1} %  {:<40}  {:4}  {}",
            100.0 * hit.probability,
            "█".repeat(length),
            hit.index,
            hit.label
        )?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
