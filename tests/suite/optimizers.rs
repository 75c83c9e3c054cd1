//! Losses, optimizers, schedules and averages against formulas written out again here, element by element.
#![expect(clippy::float_cmp, reason = "where values are compared exactly, they are exact or must be bit-identical")]

use mobilenet::layers::{BatchNorm2d, ConvBnRelu, Layer, Linear, Role, Sequential};
use mobilenet::train::{
    Adam, AdamW, CrossEntropy, Ema, GroupOptions, Optimizer, OptimizerProgress, OptimizerState, Recipe, RmsProp,
    Schedule, Sgd, clip_gradients,
};
use mobilenet::{Element, Error, Result, Runtime, Tensor};

const START: [f64; 3] = [0.5, -1.25, 3.0];
/// Gradients of three steps.
const GRADIENTS: [[f64; 3]; 3] = [[0.3, -2.0, 0.0], [-0.7, 0.1, 1e-3], [5.0, 0.25, -0.4]];

/// A layer whose weight has three elements, and nothing else.
fn vector() -> Linear<f64> {
    let mut net = Linear::builder(3, 1).without_bias().build().unwrap();
    net.visit_mut("", &mut |_, parameter| parameter.as_mut_slice().copy_from_slice(&START));
    net
}

/// A stem with batch norm and a classifier: every role but the depthwise one.
fn network<T: Element>() -> Sequential<T> {
    let stem = ConvBnRelu::builder(3, 5).kernel_size(3).stride(2).seed(3).build().unwrap();
    let classifier = Linear::builder(5, 4).seed(4).build().unwrap();
    Sequential::new().push_named("features", stem).unwrap().push_named("classifier", classifier).unwrap()
}

/// Gradients of some step for all trained parameters that are not frozen.
fn fill_gradients<T: Element>(net: &mut dyn Layer<T>, step: usize) {
    let mut phase = 31 * step;
    net.visit_mut("", &mut |_, parameter| {
        phase += 1;
        if parameter.trains() {
            for (index, d) in parameter.gradient_mut().iter_mut().enumerate() {
                *d = T::from_f64(((index * 7919 + phase * 104_729) % 2003) as f64 / 1001.0 - 1.0);
            }
        }
    });
}

fn values<T: Element>(net: &dyn Layer<T>) -> Vec<(String, Vec<T>)> {
    let mut all = Vec::new();
    net.visit("", &mut |name, parameter| all.push((name, parameter.as_slice().to_vec())));
    all
}

fn value_of(net: &dyn Layer<f64>, wanted: &str) -> Vec<f64> {
    values(net).into_iter().find(|(name, _)| name == wanted).expect("a parameter of that name").1
}

fn refused<R: std::fmt::Debug>(result: Result<R>) -> String {
    assert!(matches!(result, Err(Error::Invalid { .. } | Error::Shape { .. })), "{result:?}");
    result.unwrap_err().to_string()
}

/// Runs the three steps and compares with `formula(value, gradient, slots, t)` on each element by itself.
fn follows(mut optimizer: impl Optimizer<f64>, slots: [f64; 2], formula: impl Fn(&mut f64, f64, &mut [f64; 2], i32)) {
    let mut net = vector();
    let mut expected = START;
    let mut memory = [slots; 3];
    for (t, gradient) in (1..).zip(GRADIENTS) {
        net.visit_mut("", &mut |_, parameter| parameter.gradient_mut().copy_from_slice(&gradient));
        optimizer.step(&mut net).unwrap();
        for ((value, d), slots) in expected.iter_mut().zip(gradient).zip(&mut memory) {
            formula(value, d, slots, t);
        }
        for (found, wanted) in net.weight().as_slice().iter().zip(expected) {
            assert!((found - wanted).abs() <= 1e-13 * wanted.abs(), "step {t}: {found}, expected {wanted}");
        }
    }
}

#[test]
fn sgd_follows_its_formula() {
    follows(Sgd::new(0.1), [0.0; 2], |value, d, _, _| *value -= 0.1 * d);
    follows(Sgd::new(0.1).weight_decay(0.01), [0.0; 2], |value, d, _, _| *value -= 0.1 * (d + 0.01 * *value));
    // PyTorch's first momentum buffer is the gradient itself.
    let momentum = |m: f64, d: f64, t: i32| if t == 1 { d } else { 0.9 * m + d };
    follows(Sgd::new(0.1).momentum(0.9).weight_decay(0.01), [0.0; 2], |value, d, slots, t| {
        slots[0] = momentum(slots[0], d + 0.01 * *value, t);
        *value -= 0.1 * slots[0];
    });
    follows(Sgd::new(0.1).momentum(0.9).nesterov(), [0.0; 2], |value, d, slots, t| {
        slots[0] = momentum(slots[0], d, t);
        *value -= 0.1 * (d + 0.9 * slots[0]);
    });
}

/// A weight of these values after three steps, with gradients that follow from them.
fn stepped(values: &[f32], mut optimizer: impl Optimizer<f32>, runtime: &Runtime) -> Vec<f32> {
    let mut net = Linear::builder(values.len(), 1).without_bias().build().unwrap();
    net.visit_mut("", &mut |_, parameter| parameter.as_mut_slice().copy_from_slice(values));
    for step in [1.0, -2.0, 0.5] {
        net.visit_mut("", &mut |_, parameter| {
            parameter.gradient_mut().iter_mut().zip(values).for_each(|(d, value)| *d = step * (value - 0.001));
        });
        optimizer.step_with(&mut net, runtime).unwrap();
    }
    net.weight().as_slice().to_vec()
}

#[test]
fn large_parameters_are_updated_as_small_ones_on_any_number_of_threads() {
    fn check(optimizer: impl Optimizer<f32> + Clone) {
        let net = Linear::<f32>::builder(200_001, 1).without_bias().seed(1).build().unwrap();
        let values = net.weight().as_slice();
        let small = values.chunks(5000).map(|values| stepped(values, optimizer.clone(), &Runtime::new()));
        let expected = small.collect::<Vec<_>>().concat();
        for threads in [1, 2, 3] {
            let runtime = Runtime::new().threads(threads).unwrap();
            assert!(stepped(values, optimizer.clone(), &runtime) == expected, "{threads} threads: {optimizer:?}");
        }
    }
    check(Sgd::new(0.1).weight_decay(0.01));
    check(Sgd::new(0.1).momentum(0.9));
    check(Sgd::new(0.1).momentum(0.9).nesterov());
    check(RmsProp::pytorch(0.1));
    check(RmsProp::tensorflow(0.1).momentum(0.9));
    check(AdamW::new(0.1));
}

#[test]
fn sgd_gives_numbers_computed_by_hand() {
    let mut net = vector();
    let mut optimizer = Sgd::new(0.5).momentum(0.5);
    for gradient in [[1.0, 2.0, -4.0], [1.0, 0.0, 2.0]] {
        net.visit_mut("", &mut |_, parameter| parameter.gradient_mut().copy_from_slice(&gradient));
        optimizer.step(&mut net).unwrap();
    }
    // Buffers [1, 2, -4], then [1.5, 1, 0].
    assert_eq!(net.weight().as_slice(), [0.5 - 0.5 - 0.75, -1.25 - 1.0 - 0.5, 3.0 + 2.0]);
}

#[test]
fn rmsprop_follows_both_formulas() {
    follows(RmsProp::pytorch(0.01).decay(0.8).epsilon(1e-3), [0.0; 2], |value, d, slots, _| {
        slots[0] = 0.8 * slots[0] + (1.0 - 0.8) * d * d;
        *value -= 0.01 * d / (slots[0].sqrt() + 1e-3);
    });
    let pytorch = RmsProp::pytorch(0.01).decay(0.8).momentum(0.9).epsilon(1e-3).weight_decay(0.1);
    follows(pytorch, [0.0; 2], |value, d, slots, _| {
        let d = d + 0.1 * *value;
        slots[0] = 0.8 * slots[0] + (1.0 - 0.8) * d * d;
        slots[1] = 0.9 * slots[1] + d / (slots[0].sqrt() + 1e-3);
        *value -= 0.01 * slots[1];
    });
    follows(RmsProp::tensorflow(0.01).epsilon(0.5), [1.0, 0.0], |value, d, slots, _| {
        slots[0] += (1.0 - 0.9) * (d * d - slots[0]);
        *value -= 0.01 * d / (slots[0] + 0.5).sqrt();
    });
    let tensorflow = RmsProp::tensorflow(0.01).decay(0.8).momentum(0.9).epsilon(0.5).weight_decay(0.1);
    follows(tensorflow, [1.0, 0.0], |value, d, slots, _| {
        let d = d + 0.1 * *value;
        slots[0] += (1.0 - 0.8) * (d * d - slots[0]);
        slots[1] = 0.9 * slots[1] + 0.01 * d / (slots[0] + 0.5).sqrt();
        *value -= slots[1];
    });
}

#[test]
fn tensorflow_momentum_keeps_the_old_learning_rate() {
    // The two places of the learning rate differ only when it changes.
    let run = |mut optimizer: RmsProp<f64>| {
        let mut net = vector();
        for rate in [0.1, 0.0] {
            net.visit_mut("", &mut |_, parameter| parameter.gradient_mut().fill(1.0));
            optimizer.set_learning_rate(rate);
            optimizer.step(&mut net).unwrap();
        }
        net.weight().as_slice()[0]
    };
    let first = 0.1 / (1.0_f64 + 1.0).sqrt();
    let tensorflow = run(RmsProp::tensorflow(0.1).epsilon(1.0).momentum(0.5));
    assert!((tensorflow - (0.5 - first - 0.5 * first)).abs() < 1e-14);
    let first = 0.1 / (0.01_f64.sqrt() + 1.0);
    assert!((run(RmsProp::pytorch(0.1).epsilon(1.0).momentum(0.5)) - (0.5 - first)).abs() < 1e-14);
}

#[test]
fn adam_follows_its_formula_with_both_decays() {
    let adam = |d: f64, slots: &mut [f64; 2], t: i32| {
        slots[0] = 0.8 * slots[0] + (1.0 - 0.8) * d;
        slots[1] = 0.95 * slots[1] + (1.0 - 0.95) * d * d;
        let (m, v) = (slots[0] / (1.0 - 0.8_f64.powi(t)), slots[1] / (1.0 - 0.95_f64.powi(t)));
        0.01 * m / (v.sqrt() + 1e-6)
    };
    follows(Adam::new(0.01).betas(0.8, 0.95).epsilon(1e-6).weight_decay(0.1), [0.0; 2], |value, d, slots, t| {
        *value -= adam(d + 0.1 * *value, slots, t);
    });
    follows(AdamW::new(0.01).betas(0.8, 0.95).epsilon(1e-6).weight_decay(0.1), [0.0; 2], |value, d, slots, t| {
        *value *= 1.0 - 0.01 * 0.1;
        *value -= adam(d, slots, t);
    });
}

#[test]
fn adam_counts_the_updates_of_each_parameter() {
    let mut net = network::<f64>();
    let mut optimizer = Adam::new(0.01);
    net.visit_mut("", &mut |name, parameter| {
        if name == "classifier.bias" {
            parameter.freeze();
        }
    });
    for step in 0..5 {
        fill_gradients(&mut net, step);
        optimizer.step(&mut net).unwrap();
    }
    net.visit_mut("", &mut |_, parameter| parameter.unfreeze());
    fill_gradients(&mut net, 5);
    let before = value_of(&net, "classifier.bias");
    optimizer.step(&mut net).unwrap();
    for (before, after) in before.iter().zip(value_of(&net, "classifier.bias")) {
        // A first update is of the learning rate's size, whatever the gradient.
        assert!(((before - after).abs() - 0.01).abs() < 1e-6, "{before} to {after}");
    }
    let progress = optimizer.state().progress().clone();
    assert_eq!((progress.steps, progress.updates["classifier.bias"], progress.updates["classifier.weight"]), (6, 1, 6));
}

#[test]
fn frozen_parameters_statistics_and_missing_gradients_are_left() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 0);
    net.visit_mut("", &mut |name, parameter| {
        if name.starts_with("features") && parameter.role() == Role::ConvWeight {
            parameter.freeze();
        }
        if name == "classifier.bias" {
            parameter.freeze();
            parameter.unfreeze();
            assert!(parameter.gradient().is_none());
        }
    });
    let before = values(&net);
    let mut optimizer = Sgd::new(0.1).momentum(0.9).weight_decay(0.1);
    optimizer.step(&mut net).unwrap();
    let mut moved = Vec::new();
    for ((name, before), (_, after)) in before.iter().zip(values(&net)) {
        if *before != after {
            moved.push(name.as_str());
        }
    }
    let state = optimizer.state();
    let mut remembered: Vec<_> = state.slots().map(|(name, _)| name.trim_end_matches(".momentum")).collect();
    moved.sort_unstable();
    remembered.sort_unstable();
    assert_eq!(moved, remembered);
    assert_eq!(moved.len(), 3, "{moved:?}: scale and shift of the norm, weight of the classifier");
}

#[test]
fn groups_set_decay_and_learning_rate() {
    let mut net = network::<f64>();
    let before = values(&net);
    // Gradients of zero: only decay moves values.
    net.visit_mut("", &mut |_, parameter| {
        if parameter.role().is_trained() {
            parameter.gradient_mut().fill(0.0);
        }
        if parameter.role() == Role::Bias || parameter.role() == Role::NormShift {
            parameter.as_mut_slice().fill(1.0);
        }
    });
    let mut optimizer = Sgd::new(0.5)
        .weight_decay(0.1)
        .without_decay(&[Role::NormScale, Role::Bias])
        .group("classifier", GroupOptions::new().learning_rate_factor(2.0))
        .group("cl*.bias", GroupOptions::new().weight_decay(0.4));
    optimizer.step(&mut net).unwrap();
    let mut roles = 0;
    let after = values(&net);
    let mut index = 0;
    net.visit("", &mut |name, parameter| {
        let (first, now) = (before[index].1[0], after[index].1[0]);
        index += 1;
        let expected = match parameter.role() {
            Role::ConvWeight => first * (1.0 - 0.5 * 0.1),
            Role::NormScale | Role::RunningStatistic => first,
            Role::NormShift => 1.0 - 0.5 * 0.1,
            Role::LinearWeight => first * (1.0 - 1.0 * 0.1),
            // The later group decides alone: no factor, and its decay goes before the role's.
            Role::Bias => 1.0 - 0.5 * 0.4,
            Role::DepthwiseWeight => unreachable!(),
        };
        roles += 1;
        assert!((now - expected).abs() < 1e-15, "{name}: {now}, expected {expected}");
    });
    assert_eq!(roles, 7);
}

#[test]
fn group_without_members_is_refused() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 0);
    let before = values(&net);
    let message = refused(Sgd::new(0.1).group("clasifier", GroupOptions::new()).step(&mut net));
    assert!(message.contains("clasifier"), "{message}");
    assert_eq!(values(&net), before);
}

#[test]
fn options_out_of_range_are_refused_before_anything_changes() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 0);
    let before = values(&net);
    let group = |options: GroupOptions| Sgd::new(0.1).group("classifier", options);
    let bad: Vec<Box<dyn Optimizer<f32>>> = vec![
        Box::new(Sgd::new(f64::NAN)),
        Box::new(Sgd::new(-0.1)),
        Box::new(Sgd::new(f64::INFINITY)),
        Box::new(Sgd::new(0.1).momentum(1.0)),
        Box::new(Sgd::new(0.1).momentum(f64::NAN)),
        Box::new(Sgd::new(0.1).nesterov()),
        Box::new(Sgd::new(0.1).weight_decay(-1e-4)),
        Box::new(group(GroupOptions::new().learning_rate_factor(-1.0))),
        Box::new(group(GroupOptions::new().weight_decay(f64::NAN))),
        Box::new(RmsProp::pytorch(0.1).decay(1.0)),
        Box::new(RmsProp::tensorflow(0.1).momentum(-0.5)),
        Box::new(RmsProp::tensorflow(0.1).epsilon(0.0)),
        Box::new(Adam::new(0.1).betas(1.0, 0.9)),
        Box::new(Adam::new(0.1).betas(0.9, -0.1)),
        Box::new(AdamW::new(0.1).epsilon(f64::NAN)),
        Box::new(AdamW::new(0.1).weight_decay(f64::INFINITY)),
    ];
    for mut optimizer in bad {
        refused(optimizer.check());
        refused(optimizer.step(&mut net));
        assert_eq!(values(&net), before, "{optimizer:?}");
    }
}

/// One of each form.
fn optimizers<T: Element>() -> Vec<Box<dyn Optimizer<T>>> {
    vec![
        Box::new(Sgd::new(0.1)),
        Box::new(Sgd::torchvision().nesterov()),
        Box::new(RmsProp::pytorch(0.01)),
        Box::new(RmsProp::mobilenet_v2()),
        Box::new(Adam::new(0.01).weight_decay(0.1)),
        Box::new(AdamW::new(0.01)),
    ]
}

#[test]
fn resumed_run_is_bit_identical() {
    for ((mut through, mut resumed), mut fresh) in optimizers::<f32>().into_iter().zip(optimizers()).zip(optimizers()) {
        let schedule = Schedule::cosine(8).warm_up(2);
        let base = through.learning_rate();
        let mut net = network::<f32>();
        let mut copy = net.clone();
        for step in 0..6 {
            fill_gradients(&mut net, step);
            through.set_learning_rate(base * schedule.factor(step as u64));
            through.step(&mut net).unwrap();
            if step == 2 {
                copy = net.clone();
                // Both ways a state is stored: as one value, and as progress beside named arrays.
                let whole: OptimizerState<f32> =
                    serde_json::from_str(&serde_json::to_string(&through.state()).unwrap()).unwrap();
                assert_eq!(whole, through.state());
                let progress = serde_json::to_string(whole.progress()).unwrap();
                let mut parts = OptimizerState::new(serde_json::from_str::<OptimizerProgress>(&progress).unwrap());
                for (name, values) in whole.slots() {
                    assert!(parts.insert(name, values.to_vec()).is_none());
                }
                resumed.load_state(parts).unwrap();
                assert_eq!(resumed.learning_rate().to_bits(), through.learning_rate().to_bits());
            }
        }
        let mut interrupted = copy.clone();
        for step in 3..6 {
            fill_gradients(&mut copy, step);
            resumed.set_learning_rate(base * schedule.factor(step as u64));
            resumed.step(&mut copy).unwrap();
        }
        assert_eq!(values(&copy), values(&net), "{through:?}");
        assert_eq!(resumed.state(), through.state());
        // The state mattered: but for plain descent, a fresh start from the same weights goes elsewhere.
        for step in 3..6 {
            fill_gradients(&mut interrupted, step);
            fresh.set_learning_rate(base * schedule.factor(step as u64));
            fresh.step(&mut interrupted).unwrap();
        }
        let remembers = through.state().slots().count() > 0;
        assert_eq!(values(&interrupted) != values(&net), remembers, "{through:?}");
    }
}

#[test]
fn states_of_other_optimizers_options_and_networks_are_refused() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 0);
    let mut momentum = Sgd::new(0.1).momentum(0.9);
    momentum.step(&mut net).unwrap();
    let state = momentum.state();

    refused(Adam::new(0.1).load_state(state.clone()));
    refused(Sgd::new(0.1).load_state(state.clone()));
    let mut plain = Sgd::new(0.1);
    plain.step(&mut net).unwrap();
    refused(momentum.load_state(plain.state()));
    assert_eq!(momentum.state(), state, "a refused state changes nothing");
    refused(RmsProp::pytorch(0.1).load_state({
        let mut other = RmsProp::tensorflow(0.1);
        other.step(&mut net).unwrap();
        other.state()
    }));

    // Another head, and another network: found at the step, which names the parameter and both lengths.
    let mut other = Sequential::new()
        .push_named("features", ConvBnRelu::<f32>::builder(3, 5).kernel_size(3).build().unwrap())
        .unwrap()
        .push_named("classifier", Linear::builder(5, 7).build().unwrap())
        .unwrap();
    fill_gradients(&mut other, 0);
    let before = values(&other);
    let message = refused(momentum.step(&mut other));
    assert!(["classifier.weight", "20", "35"].iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(values(&other), before);
    let mut norm = BatchNorm2d::<f32>::builder(5).build().unwrap();
    let message = refused(momentum.step(&mut norm));
    assert!(message.contains("classifier.bias"), "{message}");
    momentum.step(&mut net).unwrap();
}

#[test]
fn options_survive_serde_and_states_stay_apart() {
    let mut net = network::<f64>();
    fill_gradients(&mut net, 0);
    let fresh = Recipe::<RmsProp<f64>>::mobilenet_v2(100);
    let mut recipe = fresh.clone();
    recipe.optimizer = recipe.optimizer.group("classifier", GroupOptions::new().learning_rate_factor(3.0));
    let text = serde_json::to_string(&recipe).unwrap();
    assert_eq!(serde_json::from_str::<Recipe<RmsProp<f64>>>(&text).unwrap(), recipe);
    assert!(serde_json::from_str::<Recipe<RmsProp<f64>>>(&text.replace("NormScale", "Nonsense")).is_err());
    recipe.optimizer.step(&mut net).unwrap();
    assert_eq!(serde_json::to_string(&recipe).unwrap(), text, "a step changes the state, not the options");
}

#[test]
fn presets_are_the_published_numbers() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 0);
    let recipe = Recipe::mobilenet_v2(10);
    let mut optimizer: RmsProp<f32> = recipe.optimizer;
    optimizer.step(&mut net).unwrap();
    assert_eq!((optimizer.learning_rate(), recipe.batch, recipe.ema_decay), (0.045, 96, Some(0.9999)));
    assert_eq!([9, 10, 20].map(|step| recipe.schedule.factor(step)), [1.0, 0.98, 0.98_f64.powi(2)]);
    let slim = Recipe::<Sgd<f32>>::mobilenet_v1_slim(10);
    assert_eq!([24, 25].map(|step| slim.schedule.factor(step)), [1.0, 0.94]);
    let paper = Recipe::<RmsProp<f32>>::mobilenet_v1(10);
    assert_eq!([19, 20].map(|step| paper.schedule.factor(step)), [1.0, 0.94]);
    let new = Recipe::<Sgd<f32>>::torchvision_v2(10);
    assert_eq!([49, 50, 6000].map(|step| new.schedule.factor(step)), [1.0, 1.0, 0.0]);
    let old = Recipe::<Sgd<f32>>::torchvision(10);
    for (optimizer, schedule, loss) in [
        (old.optimizer, old.schedule, old.loss),
        (new.optimizer, new.schedule, new.loss),
        (slim.optimizer, slim.schedule, slim.loss),
    ] {
        optimizer.check().unwrap();
        schedule.check().unwrap();
        loss.check().unwrap();
    }
    paper.optimizer.check().unwrap();
}

#[test]
fn schedules_have_their_values() {
    let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-15, "{left}, expected {right}");
    assert_eq!(Schedule::constant().factor(u64::MAX), 1.0);
    let step = Schedule::step(3, 0.5);
    assert_eq!([0, 2, 3, 5, 6].map(|at| step.factor(at)), [1.0, 1.0, 0.5, 0.5, 0.25]);
    let exponential = Schedule::exponential(2, 0.25);
    for (at, expected) in [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)] {
        close(exponential.factor(at), expected);
    }
    let cosine = Schedule::cosine(4);
    for (at, expected) in [(0, 1.0), (1, 0.5 + 0.5_f64.sqrt() / 2.0), (2, 0.5), (4, 0.0), (5, 0.0)] {
        close(cosine.factor(at), expected);
    }
    let warm = cosine.warm_up(2);
    for (at, expected) in [(0, 0.5), (1, 1.0), (2, 1.0), (3, 0.5), (4, 0.0)] {
        close(warm.factor(at), expected);
    }
    let warm = step.warm_up(4);
    assert_eq!([0, 1, 3, 4, 6, 7].map(|at| warm.factor(at)), [0.25, 0.5, 1.0, 1.0, 1.0, 0.5]);
    for bad in [
        Schedule::step(0, 0.5),
        Schedule::exponential(0, 0.5),
        Schedule::step(1, f64::NAN),
        Schedule::exponential(1, 0.0),
        Schedule::cosine(0),
        Schedule::cosine(5).warm_up(5),
    ] {
        refused(bad.check());
        let _ = [0, 1, u64::MAX].map(|step| bad.factor(step));
    }
    assert_eq!(serde_json::from_str::<Schedule>(&serde_json::to_string(&warm).unwrap()).unwrap(), warm);
}

/// Logits `[3, 1, 1, 4]` with nothing special about them.
fn logits() -> Tensor<f64> {
    Tensor::from_fn([3, 1, 1, 4], |[n, _, _, k]| ((n * 4 + k) as f64 * 1.7).sin() * 3.0).unwrap()
}

/// A distribution over four classes per image.
fn targets() -> Tensor<f64> {
    Tensor::from_slice([3, 1, 1, 4], &[0.5, 0.25, 0.25, 0.0, 0.0, 0.0, 1.0, 0.0, 0.1, 0.2, 0.3, 0.4]).unwrap()
}

/// A loss with its targets: from logits to the loss and its gradient.
type Form<'a> = dyn Fn(&Tensor<f64>) -> (f64, Tensor<f64>) + 'a;

#[test]
fn cross_entropy_gradient_is_that_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let labels = [2, 0, 3];
    for smoothing in [0.0, 0.1, 1.0] {
        let loss = CrossEntropy::new().label_smoothing(smoothing);
        let forms: [&Form<'_>; 2] =
            [&|logits| loss.hard(logits, &labels).unwrap(), &|logits| loss.soft(logits, &targets()).unwrap()];
        for form in forms {
            let (_, d_logits) = form(&logits());
            for index in 0..12 {
                let shifted = |by: f64| {
                    let mut logits = logits();
                    logits.as_mut_slice()[index] += by;
                    form(&logits).0
                };
                let expected = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
                let found = d_logits.as_slice()[index];
                // The rounding of a loss near 3, divided by the step, is below 1e-10.
                assert!((found - expected).abs() <= 1e-6 * expected.abs() + 1e-10, "{found}, expected {expected}");
            }
        }
    }
}

#[test]
fn cross_entropy_is_the_mean_of_its_definition() {
    let (logits, labels) = (logits(), [2, 0, 3]);
    let mut plain = 0.0;
    let mut smoothed = 0.0;
    for (row, label) in logits.as_slice().chunks(4).zip(labels) {
        let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
        let log = |class: usize| (row[class].exp() / sum).ln();
        plain -= log(label) / 3.0;
        smoothed -= (0.8 * log(label) + 0.05 * (0..4).map(log).sum::<f64>()) / 3.0;
    }
    let hard = |smoothing| CrossEntropy::new().label_smoothing(smoothing).hard(&logits, &labels).unwrap();
    assert!((hard(0.0).0 - plain).abs() < 1e-14);
    assert!((hard(0.2).0 - smoothed).abs() < 1e-14);

    // A label is a distribution with one class.
    let one_hot = Tensor::from_fn([3, 1, 1, 4], |[n, _, _, k]| f64::from(u8::from(labels[n] == k))).unwrap();
    let (soft, d_soft) = CrossEntropy::new().label_smoothing(0.2).soft(&logits, &one_hot).unwrap();
    let (hard, d_hard) = hard(0.2);
    assert!((soft - hard).abs() < 1e-15);
    for (soft, hard) in d_soft.as_slice().iter().zip(d_hard.as_slice()) {
        assert!((soft - hard).abs() < 1e-16);
    }
}

#[test]
fn cross_entropy_of_extreme_logits_is_finite() {
    fn run<T: Element>(size: f64) {
        let logits = Tensor::from_slice([2, 1, 1, 2], &[size, -size, -size, size].map(T::from_f64)).unwrap();
        let (loss, d_logits) = CrossEntropy::new().hard(&logits, &[0, 0]).unwrap();
        // The first image is right beyond doubt, the second wrong by `2 * size`.
        assert!((loss - size).abs() <= 1e-15 * size, "{loss}");
        assert_eq!(d_logits.as_slice(), [0.0, 0.0, -0.5, 0.5].map(T::from_f64));
    }
    run::<f64>(1e4);
    run::<f32>(1e4);
    run::<f64>(1e300);
    let logits = Tensor::from_slice([1, 1, 1, 3], &[0.0, f64::NAN, 1.0]).unwrap();
    assert!(CrossEntropy::new().hard(&logits, &[0]).unwrap().0.is_nan());
}

#[test]
fn cross_entropy_refuses_what_does_not_fit() {
    let (loss, logits) = (CrossEntropy::new(), logits());
    let message = refused(loss.hard(&logits, &[0, 4, 1]));
    assert!(["index 1", "4 ", "4 classes"].iter().all(|part| message.contains(part)), "{message}");
    refused(loss.hard(&logits, &[0, 1]));
    refused(loss.hard(&Tensor::<f64>::zeros([0, 1, 1, 4]).unwrap(), &[]));
    refused(loss.hard(&Tensor::<f64>::zeros([1, 1, 1, 0]).unwrap(), &[0]));
    refused(loss.hard(&Tensor::<f64>::zeros([1, 2, 1, 4]).unwrap(), &[0]));
    for smoothing in [-0.1, 1.1, f64::NAN] {
        refused(loss.label_smoothing(smoothing).hard(&logits, &[0, 1, 2]));
        refused(loss.label_smoothing(smoothing).soft(&logits, &targets()));
    }
    refused(loss.soft(&logits, &Tensor::zeros([3, 1, 1, 5]).unwrap()));
    for (index, value) in [(3, -1e-9), (3, f64::NAN), (3, f64::INFINITY), (3, 2e-4), (0, 0.4998)] {
        let mut targets = targets();
        targets.as_mut_slice()[index] = value;
        let message = refused(loss.soft(&logits, &targets));
        assert!(message.contains("image 0"), "{message}");
    }
    let mut nearly = targets();
    nearly.as_mut_slice()[3] = 5e-5;
    loss.soft(&logits, &nearly).unwrap();
}

#[test]
fn clipping_scales_all_gradients_together() {
    let mut net = network::<f32>();
    fill_gradients(&mut net, 1);
    let gradients = |net: &dyn Layer<f32>| {
        let mut all = Vec::new();
        net.visit("", &mut |_, parameter| all.extend_from_slice(parameter.gradient().unwrap_or(&[])));
        all
    };
    let before = gradients(&net);
    let expected = before.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt();
    let norm = clip_gradients(&mut net, f64::INFINITY).unwrap();
    assert!((norm - expected).abs() < 1e-12 * expected);
    clip_gradients(&mut net, 2.0 * expected).unwrap();
    assert_eq!(gradients(&net), before, "below the limit nothing changes");
    assert_eq!(clip_gradients(&mut net, 0.5).unwrap().to_bits(), norm.to_bits());
    let factor = f32::from_f64(0.5 / (norm + 1e-6));
    assert_eq!(gradients(&net), before.iter().map(|d| d * factor).collect::<Vec<f32>>());

    for most in [0.0, -1.0, f64::NAN] {
        refused(clip_gradients(&mut net, most));
    }
}

#[test]
fn clipping_names_the_first_gradient_that_is_not_finite() {
    for wrong in [f64::NAN, f64::INFINITY] {
        let mut net = network::<f64>();
        fill_gradients(&mut net, 1);
        net.visit_mut("", &mut |name, parameter| {
            if name.starts_with("classifier") {
                parameter.gradient_mut()[1] = wrong;
            }
        });
        let message = refused(clip_gradients(&mut net, 1.0));
        assert!(message.contains("classifier.weight"), "{message}");
    }
    let mut net = vector();
    net.visit_mut("", &mut |_, parameter| parameter.gradient_mut().copy_from_slice(&[3e200, 0.0, -4e200]));
    let norm = clip_gradients(&mut net, 1.0).unwrap();
    assert!((norm - 5e200).abs() < 1e186, "{norm}");
}

#[test]
fn ema_averages_values_and_statistics() {
    let mut net = network::<f64>();
    let mut ema = Ema::new(0.9);
    let first = values(&net);
    ema.update(&net).unwrap();
    net.visit_mut("", &mut |_, parameter| parameter.as_mut_slice().iter_mut().for_each(|value| *value += 1.0));
    ema.update(&net).unwrap();
    let own = values(&net);
    ema.swap(&mut net).unwrap();
    for ((name, first), (_, average)) in first.iter().zip(values(&net)) {
        for (first, average) in first.iter().zip(average) {
            assert!((average - (first + 0.1)).abs() < 1e-14, "{name}: {average} from {first}");
        }
    }
    let message = refused(ema.update(&net));
    assert!(message.contains("swap"), "{message}");
    ema.swap(&mut net).unwrap();
    assert_eq!(values(&net), own);
}

#[test]
fn ema_warm_up_follows_quickly_at_first() {
    let mut net = vector();
    let mut ema = Ema::new(0.5).decay_warm_up();
    let mut expected = START;
    for update in 0..12 {
        net.visit_mut("", &mut |_, parameter| parameter.as_mut_slice()[0] = f64::from(update * update));
        ema.update(&net).unwrap();
        let n = f64::from(update);
        let decay = if update == 0 { 0.0 } else { ((1.0 + n) / (10.0 + n)).min(0.5) };
        expected[0] = decay * expected[0] + (1.0 - decay) * n * n;
        let (_, averages) = ema.averages().next().unwrap();
        assert!((averages[0] - expected[0]).abs() < 1e-12, "{averages:?}, expected {expected:?}");
    }
}

#[test]
fn ema_resumes_and_refuses_other_networks() {
    let mut net = network::<f32>();
    let mut ema = Ema::new(0.9).decay_warm_up();
    refused(ema.swap(&mut net));
    refused(Ema::new(1.0).update(&net));
    for step in 0..3 {
        fill_gradients(&mut net, step);
        Sgd::new(0.1).step(&mut net).unwrap();
        ema.update(&net).unwrap();
    }
    let mut whole: Ema<f32> = serde_json::from_str(&serde_json::to_string(&ema).unwrap()).unwrap();
    assert_eq!(whole, ema);
    let mut parts = Ema::new(0.9).decay_warm_up();
    parts.restore(ema.updates(), ema.averages().map(|(name, values)| (name.into(), values.to_vec())));
    for ema in [&mut ema, &mut whole, &mut parts] {
        ema.update(&net).unwrap();
    }
    assert_eq!(whole, ema);
    assert_eq!(parts, ema);

    let mut other = Linear::<f32>::builder(3, 1).build().unwrap();
    refused(ema.update(&other));
    refused(ema.swap(&mut other));
    let mut ema = Ema::new(0.9);
    ema.update(&Linear::<f32>::builder(3, 2).build().unwrap()).unwrap();
    let message = refused(ema.swap(&mut other));
    assert!(message.contains("weight"), "{message}");
    let mut ema = Ema::new(0.9);
    ema.update(&other).unwrap();
    refused(ema.update(&Linear::<f32>::builder(3, 1).without_bias().build().unwrap()));
}
