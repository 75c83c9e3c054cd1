//! Training through the public API: a net learns, freezing freezes, statistics move as they should, bad input is
//! refused.

use mobilenet::layers::{
    BatchNorm2d, ConvBnRelu, Dropout, Gradient, Initializer, Layer, Linear, Sequential, Signal, Tape,
};
use mobilenet::train::{
    Checkpoint, CrossEntropy, EarlyStop, Ema, Evaluation, GroupOptions, Schedule, Sgd, Trainer, recalibrate,
};
use mobilenet::{Architecture, Error, MobileNetV2, Result, Runtime, Shape, Tensor, WeightSource};

/// Images of two classes, brighter at the top or at the bottom, with noise.
fn batch(images: usize, seed: u32) -> (Tensor<f32>, Vec<usize>) {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let tensor = Tensor::from_fn([images, 32, 32, 3], |[n, h, ..]| {
        let bright = (h < 16) == (n % 2 == 0);
        0.3 * noise() + if bright { 1.0 } else { -1.0 }
    });
    (tensor.unwrap(), (0..images).map(|n| n % 2).collect())
}

fn net() -> MobileNetV2<f32> {
    MobileNetV2::builder().alpha(0.35).classes(2).dropout(0.1).seed(3).build().unwrap()
}

/// What a step was refused for: its loss, the step, and where it began.
fn origin(step: Result<f64>) -> String {
    match step {
        Err(Error::Invalid { operation: "trainer", argument: "loss", found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn set(net: &mut dyn Layer<f32>, name: &str, value: f32) {
    net.visit_mut("", &mut |own, parameter| {
        if own == name {
            parameter.as_mut_slice().fill(value);
        }
    });
}

fn parameters(net: &dyn Layer<f32>) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    net.visit("", &mut |name, parameter| all.push((name, parameter.as_slice().to_vec())));
    all
}

#[test]
fn small_net_learns_and_the_same_seed_gives_the_same_run() {
    let run = || {
        let steps = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = steps.clone();
        let mut trainer = Trainer::new(net(), Sgd::new(0.02).momentum(0.9), CrossEntropy::new())
            .schedule(Schedule::cosine(80).warm_up(4))
            .clip(5.0)
            .seed(11)
            .runtime(Runtime::new().threads(2).unwrap())
            .on_step(move |report| {
                assert!(report.gradient_norm.is_some());
                seen.store(report.step, std::sync::atomic::Ordering::Relaxed);
            });
        let losses: Vec<f64> = (0..80)
            .map(|step| {
                let (images, labels) = batch(16, step);
                trainer.step(&images, &labels).unwrap()
            })
            .collect();
        assert_eq!(steps.load(std::sync::atomic::Ordering::Relaxed), 80);
        recalibrate(trainer.net_mut(), (100..104).map(|seed| batch(16, seed).0), &Runtime::new()).unwrap();
        let evaluation = trainer.evaluate((200..204).map(|seed| Ok(batch(8, seed)))).unwrap();
        (losses, evaluation, parameters(trainer.net()))
    };
    let (losses, evaluation, weights) = run();
    // At this rate four seeds on four SIMD levels gave at most 0.05, and an accuracy of 1.
    assert!(losses[79] < 0.1 * losses[0], "{losses:?}");
    assert_eq!(evaluation.images(), 32);
    assert!(evaluation.top(1) > 0.9, "{evaluation}");
    assert!(evaluation.top(2) > 0.999);
    let (again, _, other) = run();
    assert_eq!(losses, again);
    assert!(weights == other);
}

#[test]
fn frozen_backbone_keeps_its_weights_and_statistics() {
    let mut net = net();
    net.freeze_backbone();
    let before = parameters(&net);
    let mut trainer = Trainer::new(net, Sgd::new(0.1), CrossEntropy::new());
    // Not as many of each class, whose gradients by the bias would cancel.
    let (images, labels) = batch(5, 0);
    trainer.step(&images, &labels).unwrap();
    for ((name, before), (_, after)) in before.iter().zip(parameters(trainer.net())) {
        assert_eq!(*before == after, name.starts_with("features."), "{name}");
    }
}

#[test]
fn frozen_layers_that_were_loaded_anew_are_compiled_anew() {
    let mut net = net();
    net.freeze_backbone();
    let (images, _) = batch(4, 0);
    let mut tape = Tape::new(Runtime::new().threads(2).unwrap());
    let mut logits = |net: &mut MobileNetV2<f32>| {
        tape.start(0);
        net.forward_train(Signal::new(images.clone()), &mut tape).unwrap().into_tensor(&mut tape).unwrap().into_vec()
    };
    net.unfreeze("classifier").unwrap();
    let first = logits(&mut net);
    assert_eq!(first, logits(&mut net));
    net.visit_mut("", &mut |name, parameter| {
        if name == "features.0.bn.bias" {
            parameter.as_mut_slice()[3] += 0.5;
        }
    });
    let changed = logits(&mut net);
    assert_ne!(first, changed);
    // Dropout draws alike in both, so only the backbone can differ from what a new tape computes.
    let mut fresh = Tape::new(Runtime::new());
    fresh.start(0);
    let expected = net.forward_train(Signal::new(images.clone()), &mut fresh).unwrap().into_tensor(&mut fresh).unwrap();
    assert_eq!(changed, expected.into_vec());
}

/// A user's layer without fields: all of the kind have one address.
#[derive(Clone, Debug)]
struct Times<const FACTOR: u8>;

impl<const FACTOR: u8> Layer<f32> for Times<FACTOR> {
    fn kind(&self) -> &'static str {
        "Times"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }

    fn forward_with(&self, input: &Tensor<f32>, _: &Runtime) -> Result<Tensor<f32>> {
        let values = input.as_slice().iter().map(|value| f32::from(FACTOR) * value);
        Tensor::from_shape_vec(input.shape(), values.collect())
    }
}

#[test]
fn frozen_layers_that_were_replaced_are_compiled_anew() {
    let mut net = Sequential::new().push(Linear::<f32>::builder(1, 1).build().unwrap()).push(Times::<2>);
    net.visit_mut("", &mut |_, parameter| parameter.as_mut_slice().fill(1.0));
    net.freeze("*").unwrap();
    let mut tape = Tape::new(Runtime::new());
    let mut logit = |net: &mut Sequential<f32>| {
        let input = Signal::new(Tensor::zeros([1, 1, 1, 1]).unwrap());
        net.forward_train(input, &mut tape).unwrap().into_tensor(&mut tape).unwrap().into_vec()
    };
    assert_eq!(logit(&mut net), [2.0]);
    net.replace("1", Times::<3>).unwrap();
    assert_eq!(logit(&mut net), [3.0]);
    // Two chains of as many layers and the same parameters.
    let mut other = net.clone().push(Times::<5>);
    net = net.push(Times::<7>);
    assert_eq!([logit(&mut other), logit(&mut net)], [[15.0], [21.0]]);
}

#[test]
fn unfreezing_the_last_blocks_trains_them_and_the_head_alone() {
    let mut net = net();
    net.unfreeze_last(2).unwrap();
    assert!(matches!(net.unfreeze_last(99), Err(Error::Invalid { .. })));
    net.unfreeze_last(2).unwrap();
    let before = parameters(&net);
    let mut trainer = Trainer::new(net, Sgd::new(0.1), CrossEntropy::new());
    let (images, labels) = batch(4, 0);
    trainer.step(&images, &labels).unwrap();
    for ((name, before), (_, after)) in before.iter().zip(parameters(trainer.net())) {
        let trains = ["features.17.", "features.18.", "classifier."].iter().any(|part| name.starts_with(part));
        assert_eq!(*before != after, trains, "{name}");
    }
}

#[test]
fn freezing_by_pattern_counts_and_refuses_what_is_not_there() {
    let mut net = net();
    assert_eq!(net.freeze("features.0").unwrap(), 5);
    assert_eq!(net.freeze("*.running_mean").unwrap(), 52);
    assert_eq!(net.unfreeze("features.0.bn").unwrap(), 4);
    assert!(matches!(net.freeze("feature"), Err(Error::Invalid { .. })));
}

#[test]
fn replaced_head_has_the_new_classes() {
    let mut net = net();
    net.replace_head(5).unwrap().freeze_backbone();
    assert_eq!(net.output_shape([1, 32, 32, 3]).unwrap(), [1, 1, 1, 5]);
    assert!(matches!(net.replace_head(0), Err(Error::Invalid { .. })));
    let keras = || MobileNetV2::<f32>::builder().alpha(0.35).source(WeightSource::Keras);
    let head = |net: MobileNetV2<f32>| net.state_dict().get("classifier.weight").cloned();
    let mut replaced = keras().classes(9).build().unwrap();
    replaced.replace_head(5).unwrap();
    assert_eq!(head(replaced.clone()), head(keras().classes(5).build().unwrap()));
    replaced.replace_head_with(5, Initializer::Keras, 9).unwrap();
    assert_eq!(head(replaced), head(keras().classes(5).seed(9).build().unwrap()));
    let mut headless = MobileNetV2::<f32>::builder().head(mobilenet::models::Head::FeatureMap).build().unwrap();
    assert!(matches!(headless.replace_head(5), Err(Error::Invalid { .. })));
}

#[test]
fn accumulated_batches_are_one_step() {
    let net = || Linear::<f64>::builder(2, 2).seed(1).build().unwrap();
    let images = Tensor::from_slice([2, 1, 1, 2], &[1.0, 0.5, -0.25, 2.0]).unwrap();
    let mut whole = Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new());
    whole.step(&images, &[0, 1]).unwrap();
    let mut parts = Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new()).accumulation(2);
    for (image, label) in [(0, 0), (1, 1)] {
        parts.step(&images.image(image).unwrap(), &[label]).unwrap();
    }
    assert_eq!(parts.steps(), 1);
    for (whole, parts) in whole.net().weight().as_slice().iter().zip(parts.net().weight().as_slice()) {
        assert!((whole - parts).abs() < 1e-15);
    }
    let mut none = Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new()).accumulation(0);
    assert!(matches!(none.step(&images, &[0, 1]), Err(Error::Invalid { .. })));
}

#[test]
fn running_statistics_follow_the_convention() {
    // Of these the mean is 4, the variance 38 / 4 or, unbiased, 38 / 3.
    let values = Tensor::from_slice([4, 1, 1, 1], &[1.0, 2.0, 4.0, 9.0]).unwrap();
    let [biased, unbiased] = [38.0 / 4.0, 38.0 / 3.0];
    for (source, architecture, share, variance) in [
        (WeightSource::Torchvision, Architecture::MobileNetV2, 0.1, unbiased),
        (WeightSource::Timm, Architecture::MobileNetV1, 0.1, unbiased),
        (WeightSource::Keras, Architecture::MobileNetV1, 0.01, biased),
        (WeightSource::Keras, Architecture::MobileNetV2, 0.001, biased),
        (WeightSource::TfSlim, Architecture::MobileNetV1, 0.0003, unbiased),
        (WeightSource::HuggingFace, Architecture::MobileNetV2, 0.003, unbiased),
    ] {
        let convention = source.batch_norm(architecture);
        let mut norm = BatchNorm2d::<f64>::builder(1).convention(convention).build().unwrap();
        norm.forward_train(Signal::new(values.clone()), &mut Tape::new(Runtime::new())).unwrap();
        let mut statistics = Vec::new();
        norm.visit("", &mut |name, parameter| {
            if name.starts_with("running") {
                statistics.push(parameter.as_slice()[0]);
            }
        });
        assert!((statistics[0] - 4.0 * share).abs() < 1e-12, "{source:?} {statistics:?}");
        assert!((statistics[1] - (1.0 + share * (variance - 1.0))).abs() < 1e-12, "{source:?} {statistics:?}");
    }
}

#[test]
fn report_tells_the_accuracy_of_a_batch_unless_its_targets_are_soft() {
    let (sender, reports) = std::sync::mpsc::channel();
    // Of equal logits the first is the answer.
    let net = Linear::<f32>::builder(2, 2).initializer(Initializer::Zeros).build().unwrap();
    let mut trainer = Trainer::new(net, Sgd::new(0.1), CrossEntropy::new())
        .on_step(move |report| sender.send(report.accuracy).unwrap());
    let images = Tensor::zeros([4, 1, 1, 2]).unwrap();
    trainer.step(&images, &[0, 0, 1, 0]).unwrap();
    trainer.step_soft(&images, &Tensor::from_slice([4, 1, 1, 2], &[0.5; 8]).unwrap()).unwrap();
    assert_eq!(reports.try_iter().collect::<Vec<_>>(), [Some(0.75), None]);
}

/// What a step refuses leaves weights, statistics and the count of steps as they were.
#[test]
fn refused_steps_change_nothing() {
    let (images, labels) = batch(4, 1);
    let trainer = || Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new());
    let mut foreign = Ema::new(0.9);
    foreign.update(&Linear::<f32>::builder(2, 2).build().unwrap()).unwrap();
    let unknown = Sgd::new(0.1).group("no_such_layer.*", GroupOptions::new());
    let mut refusing = [
        trainer().ema(Ema::new(1.0)),
        trainer().ema(foreign),
        trainer().clip(f64::NAN).accumulation(2),
        Trainer::new(net(), unknown, CrossEntropy::new()),
        Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new().label_smoothing(2.0)),
    ];
    for trainer in &mut refusing {
        let before = parameters(trainer.net());
        assert!(matches!(trainer.step(&images, &labels), Err(Error::Invalid { .. })), "{trainer:?}");
        assert!(before == parameters(trainer.net()) && trainer.steps() == 0);
    }
}

#[test]
fn recalibration_takes_the_mean_over_batches_and_fails_without_change() {
    let mut norm = BatchNorm2d::<f64>::builder(1).build().unwrap();
    let batch = |values: &[f64]| Tensor::from_slice([values.len(), 1, 1, 1], values).unwrap();
    recalibrate(&mut norm, [batch(&[1.0, 3.0]), batch(&[5.0, 9.0])], &Runtime::new()).unwrap();
    let statistic = |norm: &BatchNorm2d<f64>, wanted: &str| {
        let mut value = f64::NAN;
        norm.visit("", &mut |name, parameter| {
            if name == wanted {
                value = parameter.as_slice()[0];
            }
        });
        value
    };
    assert!((statistic(&norm, "running_mean") - 4.5).abs() < 1e-12);
    assert!((statistic(&norm, "running_var") - 5.0).abs() < 1e-12);
    let none = recalibrate(&mut norm, [], &Runtime::new());
    assert!(matches!(none, Err(Error::Invalid { argument: "batches", .. })), "{none:?}");
    let single = recalibrate(&mut norm, [batch(&[1.0, 2.0]), batch(&[1.0])], &Runtime::new());
    assert!(matches!(single, Err(Error::Invalid { argument: "values per channel", .. })), "{single:?}");
    assert!((statistic(&norm, "running_mean") - 4.5).abs() < 1e-12);
}

#[test]
fn ema_is_what_evaluation_uses() {
    let images = Tensor::from_slice([1, 1, 1, 1], &[1.0]).unwrap();
    let net = Linear::<f64>::builder(1, 2).build().unwrap();
    let mut trainer = Trainer::new(net, Sgd::new(1.0), CrossEntropy::new()).ema(Ema::new(0.99));
    let before = trainer.evaluate([Ok((images.clone(), vec![0]))]).unwrap().loss();
    for _ in 0..5 {
        trainer.step(&images, &[0]).unwrap();
    }
    let averaged = trainer.evaluate([Ok((images.clone(), vec![0]))]).unwrap().loss();
    let plain = Evaluation::of(trainer.net(), &CrossEntropy::new(), [Ok((images, vec![0]))], &Runtime::new()).unwrap();
    assert!(plain.loss() < 0.5 * before && averaged > plain.loss() && averaged < before);
}

#[test]
fn bad_steps_are_refused_and_change_nothing() {
    let mut trainer = Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new());
    let (images, _) = batch(2, 0);
    let untouched = parameters(trainer.net());
    assert!(matches!(trainer.step(&images, &[0, 2]), Err(Error::Invalid { argument: "label", .. })));
    assert!(matches!(trainer.step(&images, &[0]), Err(Error::Shape { .. })));
    // One value per channel has no variance.
    let one = Tensor::zeros([1, 32, 32, 3]).unwrap();
    let single = trainer.step(&one, &[0]);
    assert!(matches!(single, Err(Error::Invalid { argument: "values per channel", .. })), "{single:?}");
    assert!(untouched == parameters(trainer.net()), "weights and running statistics are as before");
    let mut frozen = net();
    frozen.freeze("*").unwrap();
    let frozen = Trainer::new(frozen, Sgd::new(0.1), CrossEntropy::new()).step(&images, &[0, 1]);
    assert!(matches!(frozen, Err(Error::Invalid { argument: "network", .. })), "{frozen:?}");
}

#[test]
fn loss_that_is_not_finite_names_where_it_began_and_changes_nothing() {
    let (images, labels) = batch(2, 0);
    let depthwise = "features.3.depthwise.weight";
    for (value, begins) in [
        (f32::NAN, "NaN at step 1, first in parameter features.3.depthwise.weight"),
        // Only the statistics of the batch overflow, and the running ones are not kept.
        (1e38, "NaN at step 1, first in the batch statistics of features.3.depthwise.bn"),
    ] {
        let mut broken = net();
        set(&mut *broken, depthwise, value);
        let before = format!("{:?}", parameters(&broken));
        let mut trainer = Trainer::new(broken, Sgd::new(0.1), CrossEntropy::new());
        assert_eq!(origin(trainer.step(&images, &labels)), begins);
        assert!(before == format!("{:?}", parameters(trainer.net())), "weights and running statistics are as before");
    }
    let broken = Tensor::from_fn([2, 32, 32, 3], |_| f32::INFINITY).unwrap();
    let step = Trainer::new(net(), Sgd::new(0.1), CrossEntropy::new()).step(&broken, &labels);
    assert_eq!(origin(step), "NaN at step 1, first in the images");
}

#[test]
fn loss_that_is_not_finite_names_its_beginning_in_layers_of_any_depth() {
    fn step(net: impl Layer<f32>) -> String {
        let images = Tensor::from_fn([2, 1, 1, 2], |[n, ..]| (n + 1) as f32).unwrap();
        origin(Trainer::new(net, Sgd::new(0.1), CrossEntropy::new()).step(&images, &[0, 1]))
    }
    fn linear(weight: f32) -> Linear<f32> {
        let mut linear = Linear::builder(2, 2).build().unwrap();
        set(&mut linear, "weight", weight);
        linear
    }
    let mut leaf = linear(1.0);
    set(&mut leaf, "bias", f32::NAN);
    assert_eq!(step(leaf), "NaN at step 1, first in parameter bias");
    let overflowing = linear(f32::MAX);
    assert_eq!(step(overflowing.clone()), "NaN at step 1, first in the logits");
    // The normalisation above spoils its statistics because of the layer below.
    let norm = BatchNorm2d::builder(2).build().unwrap();
    let inner = Sequential::new().push(overflowing).push(norm);
    assert_eq!(step(inner.clone()), "NaN at step 1, first in layer 0");
    assert_eq!(step(Sequential::new().push(linear(1.0)).push(inner)), "NaN at step 1, first in layer 1.0");
}

#[test]
fn gradients_that_cannot_be_clipped_are_given_up() {
    let first = Linear::<f32>::builder(1, 1).initializer(Initializer::Zeros).build().unwrap();
    let second = Linear::builder(1, 2).initializer(Initializer::Zeros).build().unwrap();
    let mut net = Sequential::new().push(first).push(second);
    net.visit_mut("", &mut |name, parameter| {
        if name == "1.weight" {
            parameter.as_mut_slice().copy_from_slice(&[1e30, -1e30]);
        }
    });
    let mut trainer = Trainer::new(net, Sgd::new(0.0), CrossEntropy::new()).accumulation(2).clip(1.0);
    let image = |value| Tensor::from_slice([1, 1, 1, 1], &[value]).unwrap();
    trainer.step(&image(0.0), &[0]).unwrap();
    let clipped = trainer.step(&image(1e30), &[0]);
    assert!(matches!(clipped, Err(Error::Invalid { argument: "gradient", .. })), "{clipped:?}");
    for _ in 0..2 {
        trainer.step(&image(0.0), &[0]).unwrap();
    }
    assert_eq!(trainer.steps(), 1);
}

#[test]
fn backward_without_forward_is_an_error() {
    let mut net = net();
    let mut tape = Tape::new(Runtime::new());
    let gradient = Gradient::new(Tensor::zeros([1, 1, 1, 2]).unwrap());
    assert!(matches!(net.backward(gradient.clone(), &mut tape), Err(Error::Invalid { .. })));
    tape.push(3_u8);
    assert!(matches!(net.backward(gradient, &mut tape), Err(Error::Invalid { .. })));
}

#[test]
fn nothing_is_kept_below_the_lowest_layer_that_trains() {
    let mut net = Sequential::new()
        .push(ConvBnRelu::<f64>::builder(2, 3).build().unwrap())
        .push(Dropout::new(0.5).unwrap())
        .push(ConvBnRelu::builder(3, 4).build().unwrap());
    net.freeze("0").unwrap();
    let mut tape = Tape::new(Runtime::new());
    let input = Tensor::from_fn([2, 3, 3, 2], |[n, h, w, c]| (n * 7 + h * 5 + w * 3 + c) as f64).unwrap();
    let output = net.forward_train(Signal::new(input), &mut tape).unwrap().into_tensor(&mut tape).unwrap();
    assert!(net.backward(Gradient::new(output), &mut tape).unwrap().is_none());
    assert!(matches!(tape.pop::<Signal<f64>>(), Err(Error::Invalid { .. })), "the tape is empty");
    net.visit("", &mut |name, parameter| {
        assert_eq!(parameter.gradient().is_some(), name.starts_with("2.") && parameter.role().is_trained(), "{name}");
    });
}

#[test]
fn evaluation_counts_ranks_and_confusions() {
    let logits = Tensor::from_slice([3, 1, 1, 3], &[3.0_f64, 2.0, 1.0, 0.0, 5.0, 4.0, 1.0, 7.0, 7.0]).unwrap();
    let mut evaluation = Evaluation::default();
    evaluation.add(&CrossEntropy::new(), &logits, &[0, 2, 2]).unwrap();
    assert_eq!([evaluation.confused(0, 0), evaluation.confused(2, 1), evaluation.confused(9, 0)], [1, 2, 0]);
    assert!((evaluation.top(1) - 1.0 / 3.0).abs() < 1e-12 && evaluation.top(2) > 0.999);
}

#[test]
fn image_with_a_nan_logit_has_no_answer() {
    let nan = f64::NAN;
    let logits = Tensor::from_slice([4, 1, 1, 3], &[1.0, 1.0, nan, nan, 2.0, 1.0, nan, nan, nan, 0.0, 2.0, 1.0]);
    let mut evaluation = Evaluation::default();
    evaluation.add(&CrossEntropy::new(), &logits.unwrap(), &[0, 1, 0, 1]).unwrap();
    let answers = (0..9).map(|place| evaluation.confused(place / 3, place % 3));
    assert_eq!((evaluation.images(), answers.sum(), evaluation.confused(1, 1)), (4, 1, 1));
    assert!([1, 3].iter().all(|&k| (evaluation.top(k) - 0.25).abs() < 1e-12), "{evaluation:?}");
}

#[test]
fn early_stop_survives_json_and_waits_for_its_patience() {
    let fresh = serde_json::to_string(&EarlyStop::new(2)).unwrap();
    let mut stop: EarlyStop = serde_json::from_str(&fresh).unwrap();
    assert!(stop == EarlyStop::new(2) && stop.best() == f64::INFINITY);
    let stops: Vec<_> = [3.0, 2.0, 2.5, f64::NAN, 1.0].map(|loss| stop.observe(loss)).into();
    assert_eq!(stops, [false, false, false, true, false]);
    assert!((stop.best() - 1.0).abs() < 1e-12);
}

/// The same run, in one go and interrupted after every third batch.
#[test]
fn resumed_run_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let trainer = || {
        Trainer::new(net(), Sgd::new(0.037).momentum(0.9).weight_decay(1e-4), CrossEntropy::new())
            .schedule(Schedule::cosine(5).warm_up(2))
            .accumulation(2)
            .seed(5)
            .ema(Ema::new(0.9))
    };
    let mut whole = trainer();
    let mut parts = trainer();
    for step in 0..9 {
        let (images, labels) = batch(4, step);
        let loss = whole.step(&images, &labels).unwrap();
        if step % 3 == 2 {
            parts.checkpoint().save(&path).unwrap();
            parts = trainer();
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.steps(), u64::from(step) / 2);
            parts.resume(&checkpoint).unwrap();
        }
        assert_eq!(loss.to_bits(), parts.step(&images, &labels).unwrap().to_bits(), "step {step}");
    }
    assert!(parameters(whole.net()) == parameters(parts.net()));
    assert!(whole.checkpoint() == parts.checkpoint());
}

#[test]
fn checkpoints_of_equal_runs_have_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let bytes = || {
        let net = Linear::<f32>::builder(2, 3).seed(1).build().unwrap();
        let mut trainer =
            Trainer::new(net, Sgd::new(0.1).momentum(0.9), CrossEntropy::new()).seed(2).ema(Ema::new(0.9));
        trainer.step(&Tensor::from_slice([1, 1, 1, 2], &[1.0, 2.0]).unwrap(), &[1]).unwrap();
        trainer.checkpoint().save(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    let first = bytes();
    // An order of two keys that is left to chance is the same every second time.
    assert!((0..32).all(|_| bytes() == first));
    assert_eq!(Checkpoint::<f32>::open(&path).unwrap().steps(), 1);
}

#[test]
fn checkpoint_of_another_run_is_refused_and_changes_nothing() {
    let linear = |classes| Linear::<f32>::builder(2, classes).build().unwrap();
    let images = Tensor::from_slice([1, 1, 1, 2], &[1.0, 2.0]).unwrap();
    let mut other = Trainer::new(linear(3), Sgd::new(0.1).momentum(0.9), CrossEntropy::new());
    other.step(&images, &[1]).unwrap();
    let mut trainer = Trainer::new(linear(2), Sgd::new(0.1).momentum(0.9), CrossEntropy::new());
    let before = trainer.checkpoint();
    assert!(matches!(trainer.resume(&other.checkpoint()), Err(Error::StateMismatch(_))));
    let mut adam = Trainer::new(linear(3), mobilenet::train::Adam::new(0.1), CrossEntropy::new());
    let fresh = adam.checkpoint();
    assert!(matches!(adam.resume(&other.checkpoint()), Err(Error::Invalid { .. })));
    let mut averaged = Trainer::new(linear(3), Sgd::new(0.1).momentum(0.9), CrossEntropy::new()).ema(Ema::new(0.9));
    assert!(matches!(averaged.resume(&other.checkpoint()), Err(Error::Invalid { .. })));
    let mut foreign = Ema::new(0.9);
    foreign.update(&linear(2)).unwrap();
    let foreign = Trainer::new(linear(3), Sgd::new(0.1), CrossEntropy::new()).ema(foreign).checkpoint();
    let mut own = Trainer::new(linear(3), Sgd::new(0.1), CrossEntropy::new()).seed(5).ema(Ema::new(0.9));
    own.step(&images, &[1]).unwrap();
    let kept = own.checkpoint();
    assert!(matches!(own.resume(&foreign), Err(Error::Invalid { .. })));
    assert!(before == trainer.checkpoint() && fresh == adam.checkpoint() && kept == own.checkpoint());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    mobilenet::StateDict::of(trainer.net(), None).save(&path).unwrap();
    assert!(matches!(Checkpoint::<f32>::open(&path), Err(Error::Format { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(Checkpoint::<f32>::open(&path), Err(Error::Format { .. })));
}
