//! Full-precision weights against PyTorch and TensorFlow, on every SIMD level.
//!
//! The weights are too large for the repository: the folder that holds them is named by the environment variable
//! `MOBILENET_REFERENCE_DATA`. Without it these tests say so and pass.

use std::io::Write;
use std::path::{Path, PathBuf};

use mobilenet::layers::Initializer;
use mobilenet::models::Network;
use mobilenet::preprocess::Preprocess;
use mobilenet::pretrained::imagenet_labels;
use mobilenet::{
    Classifier, Layer, LoadMode, MobileNetV1, MobileNetV2, Runtime, SimdLevel, StateDict, Tensor, WeightSource,
};
use serde_json::Value;

/// The folder; `None`, loudly, if the variable is not set.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("MOBILENET_REFERENCE_DATA").map(PathBuf::from);
    if folder.is_none() {
        // Not `eprintln!`, which the test harness hides when a test passes.
        let text = "\nSKIPPED: MOBILENET_REFERENCE_DATA names no folder, so nothing was compared\n\n";
        std::io::stderr().write_all(text.as_bytes()).expect("stderr");
    }
    folder
}

fn v2(folder: &Path) -> Network<f32> {
    let state = StateDict::open(folder.join("mobilenet_v2-b0353104.pth"), WeightSource::Torchvision).unwrap();
    let builder = MobileNetV2::builder().source(WeightSource::Torchvision).initializer(Initializer::Zeros);
    let mut net = builder.build().unwrap();
    net.load(&state, LoadMode::Strict).unwrap();
    net.into()
}

fn v1(folder: &Path) -> Network<f32> {
    let path = folder.join("mobilenet_v1_1.0_224_imagenet1001.safetensors");
    let state = StateDict::open(path, WeightSource::TfSlim).unwrap();
    let builder = MobileNetV1::builder().source(WeightSource::TfSlim).initializer(Initializer::Zeros);
    let mut net = builder.classes(WeightSource::TfSlim.imagenet_classes()).build().unwrap();
    net.load(&state, LoadMode::Strict).unwrap();
    net.into()
}

/// Runs the reference input on every level and compares with the reference logits.
fn assert_logits(net: &Network<f32>, folder: &Path, name: &str, bound: f32) {
    let (shape, input) = crate::npy::read(&folder.join(format!("ref_{name}_chelsea_input.npy")));
    let input = Tensor::from_nchw(shape.try_into().expect("4 axes"), &input).unwrap();
    let (_, expected) = crate::npy::read(&folder.join(format!("ref_{name}_chelsea_logits.npy")));
    for level in SimdLevel::available() {
        let logits = net.forward_with(&input, &Runtime::new().level(level).unwrap()).unwrap();
        assert_eq!(logits.as_slice().len(), expected.len());
        let off = logits.as_slice().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name} at {level}: largest logit difference {off:e}");
        assert!(off <= bound, "{name} at {level}: a logit differs by {off}, allowed {bound}");
    }
}

/// Classifies every photo of the folder and compares with the other framework's ten best.
fn assert_probabilities(net: Network<f32>, folder: &Path, key: &str) {
    let golden: Value = serde_json::from_str(include_str!("../golden/photos.json")).unwrap();
    let source = net.source();
    let preprocess = Preprocess::of(source, net.architecture());
    let classifier = Classifier::new(net, preprocess, imagenet_labels(source)).unwrap();
    for photo in golden["photos"].as_array().unwrap() {
        let file = photo["file"].as_str().unwrap();
        let image = mobilenet::image::open(folder.join("images").join(file)).unwrap();
        let predictions = classifier.classify(&image).unwrap();
        let mut worst = 0.0_f64;
        for expected in photo[key]["top"].as_array().unwrap() {
            let (class, expected) = (expected[0].as_u64().unwrap(), expected[1].as_f64().unwrap());
            let hit = predictions.top(usize::MAX).iter().find(|hit| hit.index as u64 == class).unwrap();
            worst = worst.max((f64::from(hit.probability) - expected).abs());
        }
        let best = predictions.best();
        println!("{key} {file}: {} {:.4}, largest difference {worst:.5}", best.label, best.probability);
        assert!(worst <= 0.02, "{key} {file}: a probability differs by {worst}");
    }
}

#[test]
fn v2_logits_equal_pytorch_given_mobilenet_reference_data() {
    let Some(folder) = data() else { return };
    assert_logits(&v2(&folder), &folder, "mobilenet_v2_torchvision_b0353104", 1e-3);
}

#[test]
fn v1_logits_equal_tensorflow_given_mobilenet_reference_data() {
    let Some(folder) = data() else { return };
    assert_logits(&v1(&folder), &folder, "mobilenet_v1_1.0_224_imagenet1001", 2e-3);
}

#[test]
fn v2_probabilities_equal_torchvision_given_mobilenet_reference_data() {
    let Some(folder) = data() else { return };
    assert_probabilities(v2(&folder), &folder, "v2");
}

#[test]
fn v1_probabilities_equal_slim_given_mobilenet_reference_data() {
    let Some(folder) = data() else { return };
    assert_probabilities(v1(&folder), &folder, "v1");
}
