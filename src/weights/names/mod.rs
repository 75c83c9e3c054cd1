//! Names and array orders of each weight source, turned into ours.
//!
//! A source's module says what one of its names means ([`Meaning`]); this file applies that to a whole state dict.
//! Numbers of blocks come from the names present, never from a table, so nets of any depth are read.

mod pytorch;
mod tensorflow;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayD, Axis};

use crate::layers::{StateDict, dotted};
use crate::{Element, Error, Result, WeightSource};

/// What a foreign name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// A parameter of ours.
    Ours(Target),
    /// Something inference has no use for: counters, optimizer slots.
    Ignored,
    /// Not one of the source's names.
    Unknown,
}

/// A parameter of ours: which unit (`features.3.expand`), and which of its arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    unit: String,
    leaf: Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Weight,
    Bias,
    NormScale,
    NormShift,
    RunningMean,
    RunningVar,
}

/// The unit of every network that has no batch normalisation but a bias.
const CLASSIFIER: &str = "classifier";

impl Target {
    fn name(&self) -> String {
        dotted(
            &self.unit,
            match self.leaf {
                Leaf::Weight => "weight",
                Leaf::Bias => "bias",
                Leaf::NormScale => "bn.weight",
                Leaf::NormShift => "bn.bias",
                Leaf::RunningMean => "bn.running_mean",
                Leaf::RunningVar => "bn.running_var",
            },
        )
    }
}

impl<T: Element> StateDict<T> {
    /// Turns arrays with a source's names and orders into ours: the way in for formats this crate does not read.
    ///
    /// Convolutions become `[KH, KW, I, O]` (a depthwise one is a grouped convolution, `[KH, KW, 1, C * M]`, where the
    /// source stores it so), linear weights `[I, O]`. Counters and optimizer slots are left out; names the source does
    /// not have are kept, with their arrays as they are.
    ///
    /// ```
    /// use mobilenet::{WeightSource, layers::StateDict, ndarray::ArrayD};
    /// let theirs = [("conv1/kernel:0".to_owned(), ArrayD::<f32>::zeros(vec![3, 3, 3, 32]))];
    /// let state = StateDict::from_source(theirs, WeightSource::Keras)?;
    /// assert_eq!(state.get("features.0.weight").unwrap().shape(), [3, 3, 3, 32]);
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If two arrays would have the same name here, or blocks are numbered with a gap.
    pub fn from_source(tensors: impl IntoIterator<Item = (String, ArrayD<T>)>, source: WeightSource) -> Result<Self> {
        let (names, arrays): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
        let mut state = Self::new(Some(source));
        let mut taken = BTreeMap::new();
        for ((name, meaning), array) in names.iter().zip(meanings(&names, source)?).zip(arrays) {
            let (ours, array) = match meaning {
                Meaning::Ours(target) => (target.name(), to_our_order(array, &target, source)),
                Meaning::Unknown => (name.clone(), array),
                Meaning::Ignored => continue,
            };
            if let Some(other) = taken.insert(ours.clone(), name) {
                return Err(Error::format(
                    source.name(),
                    format_args!("`{other}` and `{name}` both stand for `{ours}`"),
                ));
            }
            state.insert(ours, array);
        }
        Ok(state)
    }
}

/// What each of a file's names stands for.
fn meanings(names: &[String], source: WeightSource) -> Result<Vec<Meaning>> {
    match source {
        WeightSource::Torchvision => Ok(pytorch::torchvision(names)),
        WeightSource::Timm => pytorch::timm(names),
        WeightSource::HuggingFace => Ok(pytorch::hugging_face(names)),
        WeightSource::TfSlim => Ok(tensorflow::slim(names)),
        WeightSource::Keras => Ok(tensorflow::keras(names)),
    }
}

/// PyTorch's OIHW and OI become HWIO and IO; TensorFlow's are that already. A 1x1 convolution that classifies becomes
/// linear. An array of another rank stays as it is, for loading to report.
fn to_our_order<T: Element>(mut array: ArrayD<T>, target: &Target, source: WeightSource) -> ArrayD<T> {
    if target.leaf != Leaf::Weight {
        return array;
    }
    let is_tensorflow = matches!(source, WeightSource::Keras | WeightSource::TfSlim);
    array = match array.ndim() {
        2 if !is_tensorflow => array.reversed_axes(),
        4 if !is_tensorflow => array.permuted_axes(ndarray::IxDyn(&[2, 3, 1, 0])),
        _ => array,
    };
    if target.unit == CLASSIFIER && matches!(array.shape(), [1, 1, _, _]) {
        array = array.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0);
    }
    if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() }
}

/// `first` plus a number in canonical decimal form, as a name has it.
fn number(digits: &str, first: u32) -> Option<u32> {
    let is_canonical = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if is_canonical { digits.parse::<u32>().ok()?.checked_add(first) } else { None }
}

/// A unit's weight.
fn weight(unit: impl Into<String>) -> Target {
    Target { unit: unit.into(), leaf: Leaf::Weight }
}

/// `features.{index}`, or `features.{index}.{part}`.
fn feature(index: u32, part: &str) -> String {
    if part.is_empty() { alloc::format!("features.{index}") } else { alloc::format!("features.{index}.{part}") }
}
