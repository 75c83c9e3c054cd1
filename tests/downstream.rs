//! A crate that depends on this one, as a user's does: with default features off, and with them on and `safetensors`.
//!
//! The crate's own tests cannot show this: its dev-dependency on itself turns features on, and they see the target
//! folder's lock file and lints.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The blocks alone: what a crate without std can call.
const PLAIN: &str = r#"
use mobilenet::layers::{InvertedResidual, Layer};
use mobilenet::Tensor;

fn main() -> Result<(), mobilenet::Error> {
    let block = InvertedResidual::<f32>::builder(8, 8).expand_ratio(2).kernel_size(5).seed(1).build()?;
    let input = Tensor::zeros([2, 9, 7, 8])?;
    let output = block.forward(&input)?;
    println!("{:?} {} {}", output.shape(), block.has_residual(), output.as_slice().iter().all(|&x| x == 0.0));
    Ok(())
}
"#;

/// A network that goes through a file and answers as before.
const SAVED: &str = r#"
use mobilenet::{Layer, LoadMode, MobileNetV2, StateDict, Tensor, WeightSource};

fn main() -> Result<(), mobilenet::Error> {
    let path = std::env::args_os().nth(1).expect("a path");
    let build = |seed| MobileNetV2::<f32>::builder().alpha(0.35).classes(3).seed(seed).build();
    let (trained, mut loaded) = (build(1)?, build(2)?);
    let images = Tensor::from_shape_vec([1, 32, 32, 3], vec![0.5; 32 * 32 * 3])?;
    let expected = trained.forward(&images)?;
    let before = loaded.forward(&images)? == expected;
    trained.state_dict().save(&path)?;
    loaded.load(&StateDict::open(&path, None::<WeightSource>)?, LoadMode::Strict)?;
    println!("{:?} {before} {}", expected.shape(), loaded.forward(&images)? == expected);
    Ok(())
}
"#;

/// Builds and runs a crate named `name` with this `main.rs` and dependency options; returns what it printed.
fn run(name: &str, dependency: &str, main: &str) -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("downstream");
    let root = folder.join(name);
    fs::create_dir_all(root.join("src")).unwrap();
    // The lock file of this package, so that nothing is looked up or fetched.
    fs::copy(package.join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    fs::write(root.join("src/main.rs"), main).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nmobilenet = {{ path = {package:?}, {dependency} }}\n\n[workspace]\n"
    );
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--")
        .arg(root.join("saved.safetensors"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn crate_without_default_features_runs_a_block() {
    assert_eq!(run("plain", "default-features = false", PLAIN), "[2, 9, 7, 8] true true\n");
}

#[test]
fn crate_with_safetensors_saves_and_loads_a_network() {
    assert_eq!(run("saved", "features = [\"safetensors\"]", SAVED), "[1, 1, 1, 3] false true\n");
}
