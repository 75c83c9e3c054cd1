//! Five training steps of whole networks against PyTorch: see `README.md` and `make_train.py` of `tests/golden`.
//!
//! The metric. A loss may be off by the tolerance times the loss. Of each tensor the golden file has a digest: sum, sum
//! of magnitudes `S` and four of its `n` elements. The sums may be off by the tolerance times `S`; an element by the
//! tolerance times its own magnitude or the mean one, `S / n`, whichever is greater. Where batch norm takes a shift
//! away that the batch norm before it added (after a linear bottleneck), that shift's true gradient is zero and `S` is
//! rounding noise; so `S` of a shift's gradient is at least that of the scale beside it.
//!
//! An input that is off by 1e-15 moves the `f64` run by less than 1e-12 in this metric, and PyTorch's own `f32` run is
//! within 2e-4 of it (`make_train.py --stability`).

use std::collections::HashMap;

use mobilenet::layers::{Gradient, Layer, Parameter, Role, Signal, Tape};
use mobilenet::models::Network;
use mobilenet::train::{AdamW, CrossEntropy, Optimizer, RmsProp, Sgd};
use mobilenet::{Element, MobileNetV1, MobileNetV2, Runtime, WeightSource};
use serde_json::Value;

use crate::common::levels;
use crate::golden_files::{fill, input, json, number, shape, tensors};

/// What `make_train.py` adds to the shift of every batch norm.
const SHIFT: f64 = 2.5;

/// Sum, sum of magnitudes and four elements of one tensor.
#[derive(Debug)]
struct Digest {
    name: String,
    len: usize,
    values: [f64; 6],
}

/// What a run leaves behind; names as in the golden file.
#[derive(Debug, Default)]
struct Record {
    losses: Vec<f64>,
    digests: Vec<(String, Vec<Digest>)>,
}

fn digest<T: Element>(name: &str, values: &[T]) -> Digest {
    let values: Vec<f64> = values.iter().map(|value| Element::to_f64(*value)).collect();
    let element = |i| values[(values.len() - 1) * i / 3];
    let sums = [values.iter().sum(), values.iter().map(|value| value.abs()).sum()];
    let values_of = [sums[0], sums[1], element(0), element(1), element(2), element(3)];
    Digest { name: name.into(), len: values.len(), values: values_of }
}

/// Digests of what `select` takes of the parameters.
fn digests<T: Element>(
    net: &Network<T>,
    select: impl for<'a> Fn(&str, &'a Parameter<T>) -> Option<&'a [T]>,
) -> Vec<Digest> {
    let mut digests = Vec::new();
    net.visit("", &mut |name, parameter| digests.extend(select(&name, parameter).map(|values| digest(&name, values))));
    digests
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap()
}

/// Whether training may change a tensor, and whether it gets a gradient.
fn is_trained<T: Element>(case: &Value, name: &str, parameter: &Parameter<T>) -> bool {
    let is_below = text(case, "training") == "head" && name.starts_with("features.");
    let is_frozen_norm = text(case, "training") == "frozen_norm" && parameter.role() == Role::RunningStatistic;
    !is_below && !is_frozen_norm
}

fn network<T: Element>(case: &Value) -> Network<T> {
    let (alpha, classes) = (case["alpha"].as_f64().unwrap(), number(&case["classes"]));
    let source = WeightSource::Torchvision;
    let mut net: Network<T> = if text(case, "architecture") == "v1" {
        MobileNetV1::builder().alpha(alpha).source(source).classes(classes).dropout(0.0).build().unwrap().into()
    } else {
        MobileNetV2::builder().alpha(alpha).source(source).classes(classes).dropout(0.0).build().unwrap().into()
    };
    fill(&mut net, "");
    net.visit_mut("", &mut |_, parameter| {
        if parameter.role() == Role::NormShift {
            parameter.as_mut_slice().iter_mut().for_each(|value| *value = T::from_f64(Element::to_f64(*value) + SHIFT));
        }
    });
    let frozen: &[&str] = match text(case, "training") {
        "all" => &[],
        "head" => &["features"],
        "frozen_norm" => &["*.running_mean", "*.running_var"],
        other => panic!("unknown training {other}"),
    };
    for pattern in frozen {
        assert!(net.freeze(pattern).unwrap() > 0, "{pattern}");
    }
    net
}

fn optimizer<T: Element>(case: &Value) -> Box<dyn Optimizer<T>> {
    let settings = &case["settings"];
    let get = |key: &str| settings[key].as_f64().unwrap();
    let (rate, decay) = (get("lr"), get("weight_decay"));
    let rms_prop = |form: RmsProp<T>| {
        Box::new(form.decay(get("alpha")).epsilon(get("eps")).momentum(get("momentum")).weight_decay(decay))
    };
    match text(case, "optimizer") {
        "sgd" => Box::new(Sgd::new(rate).momentum(get("momentum")).weight_decay(decay)),
        "nesterov" => Box::new(Sgd::new(rate).momentum(get("momentum")).weight_decay(decay).nesterov()),
        "rmsprop" => rms_prop(RmsProp::pytorch(rate)),
        "rmsprop_tensorflow" => rms_prop(RmsProp::tensorflow(rate)),
        "adamw" => {
            let beta = |index: usize| settings["betas"][index].as_f64().unwrap();
            let adam = AdamW::new(rate).betas(beta(0), beta(1));
            Box::new(adam.epsilon(get("eps")).weight_decay(decay))
        }
        other => panic!("unknown optimizer {other}"),
    }
}

fn train<T: Element>(case: &Value, steps: usize, runtime: &Runtime) -> Record {
    let mut net = network::<T>(case);
    let start = net.state_dict();
    let mut optimizer = optimizer::<T>(case);
    let criterion = CrossEntropy::new().label_smoothing(case["label_smoothing"].as_f64().unwrap());
    let name = format!("{}.{}.input", text(case, "name"), number(&case["input_number"]));
    let images = input::<T>(&name, shape(&case["input"]), 1.0);
    let labels: Vec<usize> = (0..images.shape()[0]).map(|i| (7 * i + 3) % number(&case["classes"])).collect();

    let mut record = Record::default();
    let mut tape = Tape::new(runtime.clone());
    for step in 1..=steps {
        net.zero_gradients();
        tape.start(0);
        let output = net.forward_train(Signal::new(images.clone()), &mut tape).unwrap();
        let logits = output.into_tensor(&mut tape).unwrap();
        let (loss, d_logits) = criterion.hard(&logits, &labels).unwrap();
        net.backward(Gradient::new(d_logits), &mut tape).unwrap();
        record.losses.push(loss);
        if step == 1 || step == steps {
            let gradients = digests(&net, |_, parameter| parameter.gradient());
            record.digests.push((format!("gradients.{step}"), gradients));
        }
        optimizer.step(&mut net).unwrap();
    }
    let changed = |name: &str, parameter: &Parameter<T>| is_trained(case, name, parameter);
    net.visit("", &mut |name, parameter| {
        let same = start.get(&name).unwrap() == parameter.value();
        assert!(changed(&name, parameter) || same, "{}: {name} is frozen, but changed", text(case, "name"));
    });
    let state = digests(&net, |name, parameter| changed(name, parameter).then(|| parameter.as_slice()));
    record.digests.push((format!("state.{steps}"), state));
    record
}

/// The rows that the golden file has of a kind, as `(name, digest)`.
fn rows<'a>(case: &Value, kind: &str, names: &[String], expected: &'a [f64]) -> Vec<(String, &'a [f64])> {
    let is_statistic = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
    let only_trained = kind.starts_with("gradients") || text(case, "training") == "frozen_norm";
    let names = names.iter().filter(|name| {
        !(text(case, "training") == "head" && name.starts_with("features.") || only_trained && is_statistic(name))
    });
    let names: Vec<&String> = names.collect();
    assert_eq!(names.len() * 6, expected.len(), "{} {kind}", text(case, "name"));
    names.into_iter().cloned().zip(expected.chunks_exact(6)).collect()
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let difference = (found - expected).abs();
    assert!(difference <= tolerance, "{what}: {found} instead of {expected}, off by {difference:e} > {tolerance:e}");
}

/// Compares in the metric of this file.
fn check(title: &str, found: &[Digest], expected: &[(String, &[f64])], is_gradient: bool, tolerance: f64) {
    let row_of = |name: &String| expected.iter().position(|(other, _)| other == name);
    assert_eq!(found.len(), expected.len(), "{title}: number of tensors");
    for Digest { name, len, values } in found {
        let row = row_of(name).unwrap_or_else(|| panic!("{title}: {name} is not in the golden file"));
        let expected_values = expected[row].1;
        let mut sum = expected_values[1];
        if let Some(norm) = name.strip_suffix(".bn.bias").filter(|_| is_gradient) {
            let scale = row_of(&format!("{norm}.bn.weight")).expect("a scale beside the shift");
            sum = sum.max(expected[scale].1[1]);
        }
        for (index, (&found, &expected)) in values.iter().zip(expected_values).enumerate() {
            let size = if index < 2 { sum } else { expected.abs().max(sum / *len as f64) };
            assert_near(&format!("{title} {name}[{index}]"), found, expected, tolerance * size);
        }
    }
}

fn compare<T: Element>(pick: impl Fn(&Value) -> Vec<Runtime>, tolerance: f64) {
    let (settings, golden) = (json("train.json"), tensors("train.safetensors"));
    let steps = number(&settings["steps"]);
    let list = |names: &Value| names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect();
    let names: HashMap<&str, Vec<String>> =
        settings["tensors"].as_object().unwrap().iter().map(|(key, names)| (key.as_str(), list(names))).collect();
    let cases = settings["cases"].as_array().unwrap();
    assert!(cases.len() >= 35);
    for case in cases {
        let name = text(case, "name");
        for runtime in pick(case) {
            let title = format!("{name} {}", runtime.simd_level());
            let record = train::<T>(case, steps, &runtime);
            let losses = &golden[&format!("{name}.losses")];
            assert_eq!(record.losses.len(), losses.len(), "{title}");
            for (step, (&found, &expected)) in record.losses.iter().zip(losses).enumerate() {
                assert_near(&format!("{title} loss {}", step + 1), found, expected, tolerance * expected);
            }
            for (kind, found) in &record.digests {
                let expected = &golden[&format!("{name}.{kind}")];
                let expected = rows(case, kind, &names[text(case, "architecture")], expected);
                check(&format!("{title} {kind}"), found, &expected, kind.starts_with("gradients"), tolerance);
            }
        }
    }
}

#[test]
fn training_equals_pytorch() {
    compare::<f64>(|_| vec![Runtime::new()], 1e-9);
}

/// Small images run on every level, larger ones on the best.
#[test]
fn single_precision_training_equals_pytorch_on_every_simd_level() {
    let all: Vec<Runtime> = levels().into_iter().map(|level| Runtime::new().level(level).unwrap()).collect();
    let best = all[all.len() - 1].clone();
    compare::<f32>(|case| if shape(&case["input"])[1] < 64 { all.clone() } else { vec![best.clone()] }, 1e-3);
}
