//! The embedded network, from photos to labels.

use mobilenet::image::Image;
use mobilenet::preprocess::Preprocess;
use mobilenet::pretrained::{IMAGENET_LABELS, mobilenet_v2, mobilenet_v2_network};
use mobilenet::{Architecture, Classifier, Error, Layer, MobileNetV2, Runtime, SimdLevel, Tensor, WeightSource};
use serde_json::Value;

/// The tensor `embedded.input` of `tests/golden/formula.py`, from -1 to 1.
fn formula_input() -> Tensor<f32> {
    Tensor::from_shape_vec([1, 224, 224, 3], crate::common::values("embedded.input", 224 * 224 * 3)).unwrap()
}

fn numbers(values: &Value) -> impl Iterator<Item = f64> {
    values.as_array().expect("an array").iter().map(|value| value.as_f64().expect("a number"))
}

#[test]
fn embedded_logits_equal_pytorch_on_every_level() {
    let golden: Value = serde_json::from_str(include_str!("../golden/logits_v2_f16.json")).unwrap();
    let (net, input) = (mobilenet_v2_network().unwrap(), formula_input());
    for level in SimdLevel::available() {
        let runtime = Runtime::new().level(level).unwrap();
        let logits = net.forward_with(&input, &runtime).unwrap();
        let off = logits.as_slice().iter().zip(numbers(&golden["logits"])).map(|(&a, b)| (f64::from(a) - b).abs());
        let off = off.fold(0.0, f64::max);
        println!("{level}: largest difference {off:e}");
        assert_eq!(logits.shape(), [1, 1, 1, 1000]);
        assert!(off <= 1e-3, "{level}: a logit differs by {off}");
    }
}

#[test]
fn photos_get_torchvisions_probabilities() {
    let golden: Value = serde_json::from_str(include_str!("../golden/photos.json")).unwrap();
    let classifier = mobilenet_v2().unwrap();
    for (file, first) in [("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso")] {
        let photo = golden["photos"].as_array().unwrap().iter().find(|photo| photo["file"] == file).unwrap();
        let predictions =
            classifier.classify(&mobilenet::image::open(format!("examples/images/{file}")).unwrap()).unwrap();
        assert_eq!(&*predictions.best().label, first);
        for expected in photo["v2_f16"]["top"].as_array().unwrap() {
            let (class, expected) = (expected[0].as_u64().unwrap(), expected[1].as_f64().unwrap());
            let hit = predictions.top(usize::MAX).iter().find(|hit| hit.index as u64 == class).unwrap();
            let off = (f64::from(hit.probability) - expected).abs();
            assert!(off <= 0.02, "{file}: {} has {}, torchvision {expected}", hit.label, hit.probability);
        }
    }
}

#[test]
fn cat_is_followed_by_tiger_cat_and_tabby() {
    let photo = mobilenet::image::open("examples/images/chelsea.png").unwrap();
    let predictions = mobilenet_v2().unwrap().classify(&photo).unwrap();
    let labels: Vec<&str> = predictions.top(3).iter().map(|hit| &*hit.label).collect();
    assert_eq!(labels, ["Egyptian cat", "tiger cat", "tabby"]);
    assert!((predictions.best().probability - 0.71).abs() < 0.02);
}

#[test]
fn threads_share_a_classifier_and_agree() {
    let classifier = small(["a", "b", "c"]).unwrap();
    let pixels = vec![77; 50 * 40 * 3];
    let alone = classifier.classify_rgb(&pixels, 50, 40).unwrap();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| classifier.classify_rgb(&pixels, 50, 40))).collect();
        for worker in workers {
            assert_eq!(worker.join().unwrap().unwrap(), alone);
        }
    });
    let photo = Image::from_rgb(pixels, 50, 40).unwrap();
    let pair = classifier.runtime(Runtime::new().threads(2).unwrap());
    assert_eq!(pair.classify(&photo).unwrap(), alone);
}

fn small<const N: usize>(labels: [&str; N]) -> mobilenet::Result<Classifier> {
    let net = MobileNetV2::<f32>::builder().alpha(0.25).classes(3).build()?;
    let preprocess = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(32);
    Classifier::new(net, preprocess, labels)
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    assert!(matches!(small(["a", "b"]), Err(Error::Shape { argument: "labels", .. })));
    assert!(matches!(small(["a", "b", "c", "d"]), Err(Error::Shape { argument: "labels", .. })));
    assert!(matches!(small([]), Err(Error::Shape { argument: "labels", .. })));
    let preprocess = || Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2);
    let net = || mobilenet_v2_network().unwrap();
    assert!(matches!(Classifier::new(net(), preprocess().size(0), IMAGENET_LABELS), Err(Error::Invalid { .. })));
    let grey = MobileNetV2::<f32>::builder().alpha(0.25).in_channels(1).build().unwrap();
    assert!(matches!(Classifier::new(grey, preprocess(), IMAGENET_LABELS), Err(Error::Shape { .. })));
    let features = net().features().clone();
    assert!(matches!(Classifier::new(features, preprocess(), IMAGENET_LABELS), Err(Error::Shape { .. })));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let classifier = small(["a", "b", "c"]).unwrap();
    assert!(matches!(classifier.classify_rgb(&[0; 11], 2, 2), Err(Error::Shape { .. })));
    assert!(matches!(classifier.classify_rgb(&[], 0, 0), Err(Error::Shape { .. })));
    let batch = Tensor::zeros([2, 32, 32, 3]).unwrap();
    assert!(matches!(classifier.classify_input(&batch), Err(Error::Shape { .. })));
    let nan = Tensor::from_fn([1, 32, 32, 3], |_| f32::NAN).unwrap();
    // ReLU6 may turn NaN into a number; one that reaches the logits is an error, never a probability.
    match classifier.classify_input(&nan) {
        Ok(predictions) => assert!(predictions.top(3).iter().all(|hit| hit.probability.is_finite())),
        Err(error) => assert!(matches!(error, Error::Invalid { argument: "logit", .. })),
    }
}

#[test]
fn damaged_weights_are_refused() {
    let mut net = MobileNetV2::<f32>::builder().alpha(0.25).classes(3).build().unwrap();
    net.visit_mut("", &mut |name, parameter| {
        if name == "classifier.bias" {
            parameter.as_mut_slice()[1] = f32::NAN;
        }
    });
    let preprocess = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(32);
    let classifier = Classifier::new(net, preprocess, ["a", "b", "c"]).unwrap();
    let outcome = classifier.classify_rgb(&[9; 12], 2, 2);
    assert!(matches!(outcome, Err(Error::Invalid { argument: "logit", .. })));
}
