//! Names of TF-slim checkpoints and `keras.applications`: `unit/weights`, `norm/{gamma,beta,moving_mean,...}`.
//!
//! Exporters write the levels with `/` or `.`, and Keras' variables with or without `:0`; both are taken.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::{CLASSIFIER, Leaf, Meaning, Target, feature, number, weight};

/// Endings of variables that training adds beside a weight.
const SLOTS: [&str; 8] = ["RMSProp", "Momentum", "Adam", "Adagrad", "Adadelta", "Ftrl", "biased", "local_step"];
const AVERAGE: &str = "ExponentialMovingAverage";

fn split(name: &str) -> Vec<&str> {
    name.strip_suffix(":0").unwrap_or(name).split(['/', '.']).collect()
}

fn norm(unit: impl Into<String>, leaf: &str) -> Option<Target> {
    let leaf = match leaf {
        "gamma" => Leaf::NormScale,
        "beta" => Leaf::NormShift,
        "moving_mean" => Leaf::RunningMean,
        "moving_variance" => Leaf::RunningVar,
        _ => return None,
    };
    Some(Target { unit: unit.into(), leaf })
}

fn classifier_bias() -> Target {
    Target { unit: CLASSIFIER.into(), leaf: Leaf::Bias }
}

/// TF-slim, with or without the network's name in front. Where a variable has a moving average, that is the weight.
pub(super) fn slim(names: &[String]) -> Vec<Meaning> {
    fn strip<'a, 'b>(parts: &'a [&'b str]) -> &'a [&'b str] {
        match parts {
            ["MobilenetV1" | "MobilenetV2", rest @ ..] => rest,
            _ => parts,
        }
    }
    let split: Vec<_> = names.iter().map(|name| split(name)).collect();
    let averaged: BTreeSet<_> = split
        .iter()
        .filter_map(|parts| match parts.split_last() {
            Some((&AVERAGE, rest)) => Some(rest),
            _ => None,
        })
        .collect();
    let last = split.iter().filter_map(|parts| slim_block(strip(parts).first()?)).max().unwrap_or(0).saturating_add(1);
    let meaning = |parts: &Vec<&str>| {
        if averaged.contains(parts.as_slice()) || parts.last() == Some(&"global_step") {
            return Meaning::Ignored;
        }
        let parts = match parts.split_last() {
            Some((&AVERAGE, rest)) => rest,
            Some((slot, _)) if SLOTS.iter().any(|ending| slot.starts_with(ending)) => return Meaning::Ignored,
            _ => parts,
        };
        slim_target(strip(parts), last).map_or(Meaning::Unknown, Meaning::Ours)
    };
    split.iter().map(meaning).collect()
}

/// The feature of `expanded_conv` (1), `expanded_conv_1` (2), ...
fn slim_block(name: &str) -> Option<u32> {
    match name.strip_prefix("expanded_conv")? {
        "" => Some(1),
        rest => number(rest.strip_prefix('_')?, 1),
    }
}

fn slim_target(parts: &[&str], last: u32) -> Option<Target> {
    let (unit, leaf) = match *parts {
        ["Logits", "Conv2d_1c_1x1", "weights"] => return Some(weight(CLASSIFIER)),
        ["Logits", "Conv2d_1c_1x1", "biases"] => return Some(classifier_bias()),
        ["Conv" | "Conv2d_0", ref leaf @ ..] => (feature(0, ""), leaf),
        ["Conv_1", ref leaf @ ..] => (feature(last, ""), leaf),
        [block, part @ ("expand" | "depthwise" | "project"), ref leaf @ ..] => {
            (feature(slim_block(block)?, part), leaf)
        }
        [unit, ref leaf @ ..] => {
            let (index, part) = unit.strip_prefix("Conv2d_")?.split_once('_')?;
            if !matches!(part, "depthwise" | "pointwise") {
                return None;
            }
            (feature(number(index, 0)?, part), leaf)
        }
        _ => return None,
    };
    match *leaf {
        ["weights" | "depthwise_weights"] => Some(weight(unit)),
        ["BatchNorm", leaf] => norm(unit, leaf),
        _ => None,
    }
}

/// Keras: the last two levels are layer and variable, whatever groups an exporter puts in front. The depthwise weight
/// is `depthwise_kernel`, in Keras 3 `kernel`.
pub(super) fn keras(names: &[String]) -> Vec<Meaning> {
    let split: Vec<_> = names.iter().map(|name| split(name)).collect();
    let layer = |parts: &[&str]| match *parts {
        [.., layer, _] => keras_layer(layer, u32::MAX),
        _ => None,
    };
    let last = split.iter().filter_map(|parts| layer(parts)?.block).max().unwrap_or(0).saturating_add(1);
    let target = |parts: &[&str]| match *parts {
        [.., layer, variable] => {
            let layer = keras_layer(layer, last)?;
            match variable {
                "kernel" | "depthwise_kernel" if !layer.is_norm => Some(weight(layer.unit)),
                "bias" if layer.unit == CLASSIFIER => Some(classifier_bias()),
                _ if layer.is_norm => norm(layer.unit, variable),
                _ => None,
            }
        }
        _ => None,
    };
    split.iter().map(|parts| target(parts).map_or(Meaning::Unknown, Meaning::Ours)).collect()
}

/// A layer of Keras: which unit of ours it belongs to, and whether it is the unit's norm.
struct KerasLayer {
    unit: String,
    is_norm: bool,
    /// The feature, if it is one of V2's blocks.
    block: Option<u32>,
}

fn keras_layer(name: &str, last: u32) -> Option<KerasLayer> {
    let whole = |unit: String, is_norm| Some(KerasLayer { unit, is_norm, block: None });
    match name {
        "conv1" | "Conv1" => return whole(feature(0, ""), false),
        "conv1_bn" | "bn_Conv1" => return whole(feature(0, ""), true),
        "Conv_1" => return whole(feature(last, ""), false),
        "Conv_1_bn" => return whole(feature(last, ""), true),
        "conv_preds" | "predictions" | "Logits" => return whole(CLASSIFIER.into(), false),
        _ => {}
    }
    let part_v1 = |rest: &str, part| {
        let (index, is_norm) = rest.strip_suffix("_bn").map_or((rest, false), |index| (index, true));
        whole(feature(number(index, 0)?, part), is_norm)
    };
    if let Some(rest) = name.strip_prefix("conv_dw_") {
        return part_v1(rest, "depthwise");
    }
    if let Some(rest) = name.strip_prefix("conv_pw_") {
        return part_v1(rest, "pointwise");
    }
    let (index, part) = if let Some(part) = name.strip_prefix("expanded_conv_") {
        (1, part)
    } else {
        let (index, part) = name.strip_prefix("block_")?.split_once('_')?;
        (number(index, 1)?, part)
    };
    let (part, is_norm) = part.strip_suffix("_BN").map_or((part, false), |part| (part, true));
    if !matches!(part, "expand" | "depthwise" | "project") {
        return None;
    }
    Some(KerasLayer { unit: feature(index, part), is_norm, block: Some(index) })
}
