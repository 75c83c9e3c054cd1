//! From photos to inputs: against torchvision's and TensorFlow's own, at odd sizes, with settings out of range.

use mobilenet::image::{Image, open};
use mobilenet::preprocess::{Filter, Preprocess, Resize};
use mobilenet::{Architecture, Error, WeightSource};
use serde_json::Value;

const ARCHITECTURES: [Architecture; 2] = [Architecture::MobileNetV1, Architecture::MobileNetV2];

/// One photo of `tests/golden/photos.json` that is in the repository.
fn golden(file: &str) -> (Image, Value) {
    let golden: Value = serde_json::from_str(include_str!("../golden/photos.json")).unwrap();
    let photo = golden["photos"].as_array().unwrap().iter().find(|photo| photo["file"] == file).unwrap().clone();
    (open(format!("examples/images/{file}")).unwrap(), photo)
}

/// Mean, mean magnitude, and the elements at 0, 1/3, 2/3 and the end: the digest of the golden files.
fn digest(values: &[f32]) -> [f64; 6] {
    let count = values.len();
    let mean = |value: fn(f64) -> f64| values.iter().map(|&x| value(x.into())).sum::<f64>() / count as f64;
    let at = |part: usize| f64::from(values[(count - 1) * part / 3]);
    [mean(|x| x), mean(f64::abs), at(0), at(1), at(2), at(3)]
}

/// Compares digests: means within `mean`, single elements within `element`.
fn assert_digest(found: &[f32], expected: &Value, mean: f64, element: f64) {
    for (index, (found, expected)) in digest(found).into_iter().zip(expected.as_array().unwrap()).enumerate() {
        let (off, bound) = ((found - expected.as_f64().unwrap()).abs(), if index < 2 { mean } else { element });
        assert!(off <= bound, "digest {index}: {found} is {off} from {expected}, allowed {bound}");
    }
}

#[test]
fn torchvision_inputs_equal_torchvision() {
    for file in ["chelsea.png", "coffee.png"] {
        let (photo, golden) = golden(file);
        let input = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).apply(&photo).unwrap();
        // Two bytes in a thousand differ from Pillow's by 1, which is 1 / 255 / 0.224 here.
        assert_digest(input.as_slice(), &golden["v2"]["input"], 5e-5, 0.0176);
    }
}

#[test]
fn slim_inputs_equal_tensorflow() {
    for file in ["chelsea.png", "coffee.png"] {
        let (photo, golden) = golden(file);
        let input = Preprocess::of(WeightSource::TfSlim, Architecture::MobileNetV1).apply(&photo).unwrap();
        assert_digest(input.as_slice(), &golden["v1"]["input"], 1e-6, 1e-6);
    }
}

#[test]
fn every_preset_takes_photos_of_any_size() {
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (223, 224), (225, 1000)] {
        let photo = Image::from_rgb(vec![51; (width * height * 3) as usize], width, height).unwrap();
        for source in WeightSource::ALL {
            for architecture in ARCHITECTURES {
                for size in [1, 32, 224, 331] {
                    let preprocess = Preprocess::of(source, architecture).size(size);
                    let input = preprocess.apply(&photo).unwrap();
                    assert_eq!(input.shape(), preprocess.output_shape());
                    // A photo of one colour stays of one colour.
                    for pixel in input.as_slice().chunks_exact(3) {
                        for (found, expected) in pixel.iter().zip(input.as_slice()) {
                            assert!((found - expected).abs() < 1e-5);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_and_images_give_the_same_input() {
    let (photo, _) = golden("coffee.png");
    let preprocess = Preprocess::of(WeightSource::Timm, Architecture::MobileNetV1);
    let from_bytes = preprocess.apply_rgb(photo.as_rgb(), photo.width(), photo.height()).unwrap();
    assert_eq!(from_bytes, preprocess.apply(&photo).unwrap());
    assert!(matches!(preprocess.apply_rgb(photo.as_rgb(), photo.width() + 1, 1), Err(Error::Shape { .. })));
    assert!(matches!(preprocess.apply_rgb(&[], 0, 0), Err(Error::Shape { .. })));
}

#[test]
fn normalisation_is_exact() {
    let photo = Image::from_rgb(vec![0, 51, 255], 1, 1).unwrap();
    let inception = Preprocess::of(WeightSource::Keras, Architecture::MobileNetV1).size(1).apply(&photo).unwrap();
    assert_eq!(inception.as_slice(), [-1.0, (0.2 - 0.5) / 0.5, 1.0]);
    let imagenet = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(1);
    let expected = [-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1.0 - 0.406) / 0.225];
    assert_eq!(imagenet.apply(&photo).unwrap().as_slice(), expected);
}

#[test]
fn settings_out_of_range_are_refused() {
    let photo = Image::from_rgb(vec![0; 12], 2, 2).unwrap();
    let whole = Resize::Whole { filter: Filter::Bilinear };
    let shorter_side = |pixels| Resize::ShorterSide { pixels, filter: Filter::Bicubic };
    let fraction = |fraction| Preprocess::new(Resize::CentralFraction { fraction }, 8);
    let good = Preprocess::new(whole, 8);
    for bad in [
        Preprocess::new(whole, 0),
        Preprocess::new(whole, u32::MAX),
        Preprocess::new(shorter_side(7), 8),
        Preprocess::new(shorter_side(u32::MAX), 8),
        fraction(0.0),
        fraction(1.01),
        fraction(f64::NAN),
        good.clone().normalize([f32::NAN; 3], [1.0; 3]),
        good.clone().normalize([0.0; 3], [0.0, 1.0, 1.0]),
        good.clone().normalize([0.0; 3], [1.0, f32::INFINITY, 1.0]),
    ] {
        assert!(matches!(bad.apply(&photo), Err(Error::Invalid { .. })), "{bad:?}");
    }
    // A strip so long that its longer side would not fit: an error, not an overflow.
    let strip = Image::from_rgb(vec![0; 3 << 20], 1 << 20, 1).unwrap();
    assert!(matches!(Preprocess::new(shorter_side(8192), 8).apply(&strip), Err(Error::Shape { .. })));
    assert!(good.apply(&photo).is_ok());
}
