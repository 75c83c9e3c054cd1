//! Reads the files of `tests/golden`, and fills layers with the values of its `formula.py`.

use std::collections::HashMap;
use std::path::PathBuf;

use mobilenet::layers::{Layer, Role};
use mobilenet::{Element, Tensor};
use serde_json::Value;

use crate::common::uniform;

pub(crate) fn read(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

/// The `f64` tensors of a safetensors file: a header's length, the header, the values.
pub(crate) fn tensors(name: &str) -> HashMap<String, Vec<f64>> {
    let bytes = read(name);
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap());
    let header: HashMap<String, Value> = serde_json::from_slice(header).unwrap();
    let values = |entry: &Value| {
        assert_eq!(entry["dtype"], "F64");
        let range = numbers(&entry["data_offsets"]);
        let values = data[range[0]..range[1]].chunks_exact(8);
        values.map(|value| f64::from_le_bytes(value.try_into().unwrap())).collect()
    };
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| (name.clone(), values(entry)))
        .collect()
}

pub(crate) fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(number).collect()
}

pub(crate) fn shape(value: &Value) -> [usize; 4] {
    numbers(value).try_into().unwrap()
}

/// The power of two nearest to `sqrt(6 / fan_in)`.
fn scale(fan_in: usize) -> f64 {
    let (mut power, mut limit) = (2.0, 3);
    while fan_in >= limit {
        (power, limit) = (power / 2.0, limit * 4);
    }
    power
}

/// Gives every parameter the formula's values; `prefix` is the case's name for single layers.
pub(crate) fn fill<T: Element>(layer: &mut dyn Layer<T>, prefix: &str) {
    layer.visit_mut(prefix, &mut |name, parameter| {
        let role = parameter.role();
        let inputs = if role == Role::DepthwiseWeight { 2 } else { parameter.shape().len() - 1 };
        let bound = scale(parameter.shape()[..inputs].iter().product());
        for (index, value) in parameter.as_mut_slice().iter_mut().enumerate() {
            let u = uniform(&name, index);
            *value = T::from_f64(match role {
                Role::NormScale => 0.5 + u,
                Role::RunningStatistic if name.ends_with("var") => 0.5 + u,
                Role::RunningStatistic => (u - 0.5) / 2.0,
                Role::NormShift | Role::Bias => u - 0.5,
                Role::ConvWeight | Role::DepthwiseWeight | Role::LinearWeight => (2.0 * u - 1.0) * bound,
            });
        }
    });
}

/// The input of this name: the formula's values times `scale`.
pub(crate) fn input<T: Element>(name: &str, shape: [usize; 4], scale: f64) -> Tensor<T> {
    let mut index = 0;
    Tensor::from_fn(shape, |_| {
        index += 1;
        T::from_f64((2.0 * uniform(name, index - 1) - 1.0) * scale)
    })
    .unwrap()
}
