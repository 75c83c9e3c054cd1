//! Names of torchvision, timm and Hugging Face: `unit.weight`, `norm.{weight,bias,running_mean,running_var}`.
//!
//! torchvision numbers the steps inside a block and timm the norms, so the same number means another unit in a block
//! without expansion; which blocks expand is read off the names.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::{CLASSIFIER, Leaf, Meaning, Target, feature, number, weight};
use crate::{Error, Result};

/// Applies a source's rule to every name, without the `module.` that training on several devices puts in front.
fn each(names: &[String], rule: impl Fn(&[&str]) -> Option<Target>) -> Vec<Meaning> {
    let bare = bare(names);
    let meaning = |name: &&str| {
        let parts: Vec<_> = name.split('.').collect();
        if parts.last() == Some(&"num_batches_tracked") {
            return Meaning::Ignored;
        }
        rule(&parts).map_or(Meaning::Unknown, Meaning::Ours)
    };
    bare.iter().map(meaning).collect()
}

/// The names without `module.`, if all of them have it.
fn bare(names: &[String]) -> Vec<&str> {
    let stripped: Option<Vec<_>> = names.iter().map(|name| name.strip_prefix("module.")).collect();
    stripped.unwrap_or_else(|| names.iter().map(String::as_str).collect())
}

fn norm(unit: impl Into<String>, leaf: &str) -> Option<Target> {
    let leaf = match leaf {
        "weight" => Leaf::NormScale,
        "bias" => Leaf::NormShift,
        "running_mean" => Leaf::RunningMean,
        "running_var" => Leaf::RunningVar,
        _ => return None,
    };
    Some(Target { unit: unit.into(), leaf })
}

fn classifier(leaf: &str) -> Option<Target> {
    let leaf = match leaf {
        "weight" => Leaf::Weight,
        "bias" => Leaf::Bias,
        _ => return None,
    };
    Some(Target { unit: CLASSIFIER.into(), leaf })
}

/// torchvision's MobileNetV2: a block is `conv.0` (expand), `conv.1` (depthwise), `conv.2` and `conv.3` (project), or
/// one less of each without expansion; a unit is `0` (convolution) and `1` (norm).
pub(super) fn torchvision(names: &[String]) -> Vec<Meaning> {
    let expanding: BTreeSet<_> = bare(names)
        .into_iter()
        .filter_map(|name| name.strip_prefix("features.")?.strip_suffix(".conv.1.0.weight"))
        .collect();
    each(names, |parts| match *parts {
        ["features", block, "0", "weight"] => Some(weight(feature(number(block, 0)?, ""))),
        ["features", block, "1", leaf] => norm(feature(number(block, 0)?, ""), leaf),
        ["features", block, "conv", ref step @ ..] => {
            let part = |part| Some(feature(number(block, 0)?, part));
            let parts: &[_] =
                if expanding.contains(block) { &["expand", "depthwise", "project"] } else { &["depthwise", "project"] };
            let (project, units) = parts.split_last()?;
            match *step {
                [unit, "0", "weight"] => Some(weight(part(units.get(number(unit, 0)? as usize)?)?)),
                [unit, "1", leaf] => norm(part(units.get(number(unit, 0)? as usize)?)?, leaf),
                [step, leaf] => match (number(step, 0)? as usize).checked_sub(units.len())? {
                    0 if leaf == "weight" => Some(weight(part(project)?)),
                    1 => norm(part(project)?, leaf),
                    _ => None,
                },
                _ => None,
            }
        }
        ["classifier", "1", leaf] | ["classifier", leaf] => classifier(leaf),
        _ => None,
    })
}

/// timm's `mobilenetv1_*` and `mobilenetv2_*`: blocks are numbered in stages, units named by role, norms counted.
pub(super) fn timm(names: &[String]) -> Result<Vec<Meaning>> {
    let bare = bare(names);
    let mut stages = BTreeMap::new();
    let mut expanding = BTreeSet::new();
    let mut is_v2 = false;
    for name in bare {
        let parts: Vec<_> = name.split('.').take(4).collect();
        if let ["blocks", stage, block, unit] = *parts
            && let (Some(stage), Some(len)) = (number(stage, 0), number(block, 1))
        {
            let longest = stages.entry(stage).or_insert(len);
            *longest = len.max(*longest);
            if unit == "conv_pwl" {
                is_v2 = true;
                expanding.insert((stage, len));
            }
        }
    }
    let (firsts, last) = number_stages(&stages)?;
    Ok(each(names, |parts| match *parts {
        ["conv_stem", "weight"] => Some(weight(feature(0, ""))),
        ["bn1", leaf] => norm(feature(0, ""), leaf),
        ["conv_head", "weight"] if is_v2 => Some(weight(feature(last, ""))),
        ["bn2", leaf] if is_v2 => norm(feature(last, ""), leaf),
        ["classifier", leaf] => classifier(leaf),
        ["blocks", stage, block, unit, leaf] => {
            let (stage, len) = (number(stage, 0)?, number(block, 1)?);
            let index = firsts.get(&stage)?.checked_add(len - 1)?;
            let is_expanding = expanding.contains(&(stage, len));
            let narrow = if is_v2 { "project" } else { "pointwise" };
            let part = match (unit, is_expanding) {
                ("conv_pw" | "bn1", true) => "expand",
                ("conv_dw", _) | ("bn2", true) | ("bn1", false) => "depthwise",
                ("conv_pwl" | "bn3", true) => "project",
                ("conv_pw" | "bn2", false) => narrow,
                _ => return None,
            };
            match (unit.starts_with("conv"), leaf) {
                (true, "weight") => Some(weight(feature(index, part))),
                (true, _) => None,
                (false, leaf) => norm(feature(index, part), leaf),
            }
        }
        _ => None,
    }))
}

/// The feature each stage starts at, and the one after the last block.
fn number_stages(stages: &BTreeMap<u32, u32>) -> Result<(BTreeMap<u32, u32>, u32)> {
    let mut firsts = BTreeMap::new();
    let mut next = 1_u32;
    for (expected, (&stage, &len)) in (0..).zip(stages) {
        if stage != expected {
            return Err(Error::format(
                "timm",
                format_args!("there is `blocks.{stage}` but no `blocks.{expected}`, so blocks cannot be numbered"),
            ));
        }
        firsts.insert(stage, next);
        next = next
            .checked_add(len)
            .ok_or_else(|| Error::format("timm", format_args!("`blocks.{stage}` has {len} blocks: too many")))?;
    }
    Ok((firsts, next))
}

/// `transformers`' `MobileNetV1*` and `MobileNetV2*`, with or without the base model's name in front.
pub(super) fn hugging_face(names: &[String]) -> Vec<Meaning> {
    fn strip<'a, 'b>(parts: &'a [&'b str]) -> &'a [&'b str] {
        match parts {
            ["mobilenet_v1" | "mobilenet_v2", rest @ ..] => rest,
            _ => parts,
        }
    }
    // The V2 stem is feature 0 and the block without expansion 1; its layers follow, then the last convolution.
    let layers = bare(names)
        .into_iter()
        .filter_map(|name| match *strip(&name.split('.').collect::<Vec<_>>()) {
            ["layer", layer, ..] => number(layer, 1),
            _ => None,
        })
        .max();
    let last = layers.unwrap_or(0).saturating_add(2);
    each(names, |parts| {
        let (unit, leaf) = match *strip(parts) {
            ["classifier", leaf] => return classifier(leaf),
            ["conv_stem", ref leaf @ ..] if leaf.len() == 2 => (feature(0, ""), leaf),
            ["conv_stem", "first_conv", ref leaf @ ..] => (feature(0, ""), leaf),
            ["conv_stem", "conv_3x3", ref leaf @ ..] => (feature(1, "depthwise"), leaf),
            ["conv_stem", "reduce_1x1", ref leaf @ ..] => (feature(1, "project"), leaf),
            ["conv_1x1", ref leaf @ ..] => (feature(last, ""), leaf),
            ["layer", layer, ref leaf @ ..] if leaf.len() == 2 => {
                let layer = number(layer, 0)?;
                (feature(layer / 2 + 1, if layer % 2 == 0 { "depthwise" } else { "pointwise" }), leaf)
            }
            ["layer", layer, unit, ref leaf @ ..] => {
                let part = match unit {
                    "expand_1x1" => "expand",
                    "conv_3x3" => "depthwise",
                    "reduce_1x1" => "project",
                    _ => return None,
                };
                (feature(number(layer, 2)?, part), leaf)
            }
            _ => return None,
        };
        match *leaf {
            ["convolution", "weight"] => Some(weight(unit)),
            ["normalization", leaf] => norm(unit, leaf),
            _ => None,
        }
    })
}
