//! A crate that depends on this one, built with its default features off and on: the public API is enough.

use std::path::Path;
use std::process::Command;

/// Runs on `core` and `alloc` alone, apart from printing.
const SMALL: &str = r#"
use mobilenet::{InvertedResidual, Layer, Tensor};

fn main() -> Result<(), mobilenet::Error> {
    let block = InvertedResidual::<f64>::builder(8, 8).expand_ratio(6).build()?;
    let output = block.forward(&Tensor::zeros([1, 5, 5, 8])?)?;
    println!("{:?}", output.shape());
    Ok(())
}
"#;

/// Saves a network and loads it again.
const WHOLE: &str = r#"
use mobilenet::{Layer, LoadMode, MobileNetV1, StateDict, Tensor, WeightSource};

fn main() -> Result<(), mobilenet::Error> {
    let build = |seed| MobileNetV1::<f32>::builder().alpha(0.25).classes(4).seed(seed).build();
    let (net, mut other) = (build(1)?, build(2)?);
    let path = std::env::args().nth(1).expect("a path");
    net.state_dict().save(&path)?;
    other.load(&StateDict::open(&path, WeightSource::TfSlim)?, LoadMode::Strict)?;
    let images = Tensor::from_fn([2, 33, 40, 3], |[n, h, w, c]| ((n + h * 3 + w * 5 + c) % 7) as f32 - 3.0)?;
    assert_eq!(net.forward(&images)?, other.forward(&images)?);
    println!("equal");
    Ok(())
}
"#;

fn run(name: &str, dependency: &str, main: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n[dependencies.mobilenet]\npath = {:?}\n{dependency}\n\
         [profile.dev]\ndebug = false\nincremental = false\n[workspace]\n",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.join("src/main.rs"), main).unwrap();
    // The versions this crate was tested with; what is not needed is dropped.
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--"])
        .arg(folder.join("net.safetensors"))
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("downstream-target"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// One test: two would wait for each other's compiler, on the threads that other tests need.
#[test]
fn crate_builds_and_runs_without_default_features_and_with_them() {
    assert_eq!(run("small", "default-features = false", SMALL), "[1, 5, 5, 8]");
    assert_eq!(run("whole", "features = [\"safetensors\"]", WHOLE), "equal");
}
