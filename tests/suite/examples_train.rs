//! The examples that train, run as a user runs them: interrupted and resumed, on a folder with a damaged file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ::image::{Rgb, RgbImage};
use mobilenet::pretrained::mobilenet_v2_network;
use mobilenet::train::Checkpoint;
use mobilenet::{LoadMode, MobileNetV2, StateDict};

/// Eight images of each of two classes: 13 to train, 3 to validate.
fn photos(folder: &Path) -> PathBuf {
    let folder = folder.join("photos");
    for (class, red) in [("dark", 40), ("light", 200)] {
        fs::create_dir_all(folder.join(class)).unwrap();
        for number in 0..8_u8 {
            let pixel = |x: u32, y: u32| Rgb([red, number * 20, ((x * 3) ^ (y * 5)).to_le_bytes()[0]]);
            RgbImage::from_fn(40, 36, pixel).save(folder.join(class).join(format!("{number}.png"))).unwrap();
        }
    }
    folder
}

/// An example with these arguments, to run.
fn example(name: &str, arguments: &[&str]) -> Command {
    // `cargo test --test` does not build it.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", name]);
    build.args((!cfg!(debug_assertions)).then_some("--release"));
    assert!(build.status().unwrap().success());
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut command = Command::new(profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION));
    command.args(arguments);
    command
}

/// Trains on `folder/photos` with outputs in `folder/out`: three steps in each of four epochs, unless told otherwise.
fn train(folder: &Path, out: &str, arguments: &[&str]) -> Command {
    let mut command = example("train", &["--size", "32", "--batch", "4", "--epochs", "4"]);
    command.arg("--data").arg(folder.join("photos")).arg("--out").arg(folder.join(out)).args(arguments);
    command
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn succeeded(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

/// The checkpoints of two runs are the same, and these files.
fn assert_same(folder: &Path, [one, other]: [&str; 2], names: &[&str]) {
    for name in names.iter().chain(&["checkpoint.safetensors"]) {
        let [one, other] = [one, other].map(|out| fs::read(folder.join(out).join(name)).unwrap());
        assert!(one == other, "{name} differs");
    }
}

fn checkpoint(folder: &Path) -> Checkpoint<f32> {
    Checkpoint::open(folder.join("checkpoint.safetensors")).unwrap()
}

#[test]
fn training_resumed_within_an_epoch_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    photos(folder);
    succeeded(train(folder, "whole", &[]));

    let output = succeeded(train(folder, "parts", &["--steps", "4"]));
    assert!(stdout(&output).contains("stopped after step 4"), "{}", stdout(&output));
    assert!(!folder.join("parts/weights.safetensors").exists());
    let output = train(folder, "parts", &["--resume", "--lr", "0.5"]).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("other options"), "{}", stderr(&output));
    // What a crash between the two files would leave: a curve that is ahead of its checkpoint.
    let curve = folder.join("parts/curve.csv");
    fs::write(&curve, fs::read_to_string(&curve).unwrap() + "5,1,9.75,,\n").unwrap();
    let output = succeeded(train(folder, "parts", &["--resume", "--threads", "1"]));
    assert!(stdout(&output).contains("goes on after step 4"), "{}", stdout(&output));

    let files = ["weights.safetensors", "curve.csv", "curve.svg", "classes.txt"];
    assert_same(folder, ["whole", "parts"], &files);
    let rows = fs::read_to_string(curve).unwrap();
    assert_eq!(rows.lines().count(), 1 + 12);
    assert_eq!(rows.lines().filter(|row| !row.ends_with(",,")).count(), 1 + 4, "a validation after each epoch");
    assert!(fs::read_to_string(folder.join("parts/curve.svg")).unwrap().trim_end().ends_with("</svg>"));
    assert!(fs::read_dir(folder.join("parts")).unwrap().all(|file| file.unwrap().path().extension().unwrap() != "tmp"));
    succeeded(train(folder, "parts", &["--steps", "2"]));
    assert!(!folder.join("parts/weights.safetensors").exists(), "those of another run");
    assert!(
        folder.join("parts/checkpoint.old.safetensors").exists()
            && !train(folder, "parts", &["--lr", "-1"]).status().unwrap().success()
    );
    assert_eq!(checkpoint(&folder.join("parts")).steps(), 2, "a refused run changes nothing");
}

#[cfg(unix)]
#[test]
fn training_interrupted_by_a_signal_saves_what_it_has() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    photos(folder);
    let endless = |out: &str, arguments: &[&str]| {
        let mut command = train(folder, out, &["--epochs", "100000"]);
        command.args(arguments);
        command
    };
    let mut child = endless("parts", &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "it ended before its first epoch");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");

    let steps = checkpoint(&folder.join("parts")).steps();
    assert!(rest.contains(&format!("stopped after step {steps}; ")), "{rest}");
    let limit = (steps + 2).to_string();
    succeeded(endless("parts", &["--resume", "--steps", &limit]));
    succeeded(endless("whole", &["--steps", &limit]));
    assert_same(folder, ["whole", "parts"], &["curve.csv"]);
}

#[test]
fn fine_tuning_skips_damaged_files_and_changes_the_head_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (photos(folder.path()), folder.path().join("out"));
    fs::write(photos.join("light/broken.png"), b"\x89PNG\r\n\x1a\n and no more").unwrap();
    let mut command = example("finetune", &["--folds", "2", "--epochs", "1", "--batch", "4"]);
    command.arg("--data").arg(&photos).arg("--out").arg(&out);
    let output = succeeded(command);
    assert!(stderr(&output).contains("skipped: ") && stderr(&output).contains("broken.png"), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("mean accuracy over 2 folds"), "{text}");
    let matrix: Vec<Vec<&str>> = text.lines().rev().take(3).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!((matrix[2].as_slice(), matrix[1][0], matrix[0][0]), (["dark", "light"].as_slice(), "dark", "light"));
    let answers = matrix[..2].iter().flat_map(|row| &row[1..]).map(|count| count.parse::<usize>().unwrap());
    assert_eq!(answers.sum::<usize>(), 16, "each readable image is validated once: {text}");

    let fold = out.join("fold-2");
    let photo = photos.join("light").join("0.png");
    let mut command = example("classify", &[]);
    command.arg("--weights").arg(fold.join("weights.safetensors")).arg("--labels").arg(fold.join("classes.txt"));
    command.arg("--image").arg(photo);
    let output = succeeded(command);
    assert!(["dark", "light"].iter().all(|class| stdout(&output).contains(class)), "{}", stdout(&output));
    assert_eq!(fs::read_to_string(fold.join("classes.txt")).unwrap(), "dark\nlight\n");
    let mut net = MobileNetV2::<f32>::builder().classes(2).build().unwrap();
    net.load(StateDict::open(fold.join("weights.safetensors"), None).unwrap(), LoadMode::Strict).unwrap();
    let embedded = mobilenet_v2_network().unwrap().state_dict();
    for (name, values) in net.state_dict().iter().filter(|(name, _)| !name.starts_with("classifier")) {
        assert_eq!(Some(values), embedded.get(name), "{name}");
    }
}
