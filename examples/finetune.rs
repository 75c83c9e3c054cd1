//! Teaches the embedded MobileNetV2 other classes: `cargo run --release --example finetune`.
//!
//! The head is new; the rest stays as ImageNet made it, but for the last blocks with `--unfreeze`. The weights it saves
//! load into a `MobileNetV2` of as many classes as `classes.txt` beside them has lines.

mod common;
mod training;

use std::io::{Write, stdout};
use std::process::ExitCode;

use common::Result;
use mobilenet::data::Augmentation;
use mobilenet::models::Network;
use mobilenet::preprocess::{Filter, Preprocess, Resize};
use mobilenet::pretrained;
use mobilenet::train::Evaluation;
use training::{Interrupt, Options, Run, Task, VALIDATION};

const HELP: &str = "\
Fine-tunes the MobileNetV2 in the crate; on generated images of coloured shapes unless told otherwise.

  --unfreeze N         train the last N of the 19 feature blocks too, not the head alone
  --folds K            K runs, each validated on another part of the images, in place of one";

/// Of each generated class.
const IMAGES_PER_CLASS: usize = 20;

fn main() -> ExitCode {
    common::report(run())
}

fn run() -> Result<ExitCode> {
    use lexopt::ValueExt;
    let (mut unfreeze, mut folds) = (0, None);
    let options = Options::new(15, 16, 5e-3, "target/finetune").read(HELP, |name, parser| {
        match name {
            "unfreeze" => unfreeze = parser.value()?.parse()?,
            "folds" => folds = Some(parser.value()?.parse()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(options) = options else { return Ok(ExitCode::SUCCESS) };
    let interrupt = Interrupt::listen()?;
    let images = options.images(IMAGES_PER_CLASS, 224)?;
    let mut net: Network<f32> = pretrained::mobilenet_v2_network()?.into();
    let initializer = net.source().into();
    net.replace_head_with(images.classes().len(), initializer, options.seed)?.unfreeze_last(unfreeze)?;
    let runs = match folds {
        None => vec![(options.out.clone(), images.split(VALIDATION, options.seed)?)],
        Some(k) => {
            (1..).map(|fold| options.out.join(format!("fold-{fold}"))).zip(images.folds(k, options.seed)?).collect()
        }
    };

    let mut evaluations = Vec::with_capacity(runs.len());
    for (folder, (training, validation)) in runs {
        // Not the centre alone, which cuts off what fills the photo.
        let whole = Resize::Whole { filter: Filter::Bilinear };
        let preprocess = Preprocess::of(net.source(), net.architecture()).resize(whole);
        let augmentation = Augmentation::light();
        let task = Task { net: net.clone(), training, validation, preprocess, augmentation };
        let Some(evaluation) = Run::new(task, &options, &folder)?.finish(&interrupt)? else {
            return Ok(interrupt.exit_code());
        };
        writeln!(stdout(), "accuracy {:.2} %, files in {}\n", 100.0 * evaluation.top(1), folder.display())?;
        evaluations.push(evaluation);
    }
    if evaluations.len() > 1 {
        let mean = evaluations.iter().map(|evaluation| evaluation.top(1)).sum::<f64>() / evaluations.len() as f64;
        writeln!(stdout(), "mean accuracy over {} folds {:.2} %\n", evaluations.len(), 100.0 * mean)?;
    }
    print_confusions(&evaluations, images.classes())?;
    Ok(interrupt.exit_code())
}

/// A row for each class, a column for each answer; folds are added up.
fn print_confusions(evaluations: &[Evaluation], classes: &[String]) -> Result<()> {
    let mut out = stdout().lock();
    let width = classes.iter().map(|class| class.chars().count()).max().unwrap_or(0).max(5);
    write!(out, "{:width$}", "")?;
    classes.iter().try_for_each(|class| write!(out, "  {class:>width$}"))?;
    for (label, class) in classes.iter().enumerate() {
        write!(out, "\n{class:width$}")?;
        for answer in 0..classes.len() {
            let count: usize = evaluations.iter().map(|evaluation| evaluation.confused(label, answer)).sum();
            write!(out, "  {count:width$}")?;
        }
    }
    Ok(writeln!(out)?)
}
