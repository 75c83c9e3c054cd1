//! Names and array orders of each source.

use std::collections::BTreeMap;

use mobilenet::layers::{Initializer, StateDict};
use mobilenet::models::Network;
use mobilenet::ndarray::{ArrayD, Dimension, IxDyn};
use mobilenet::{Error, LoadMode, MobileNetV1, MobileNetV2, Result, WeightSource};
use serde_json::json;

use super::files::safetensors;

/// Arrays of these names, their elements counted up from zero.
fn arrays(named: &[(&str, &[usize])]) -> Vec<(String, ArrayD<f32>)> {
    named
        .iter()
        .map(|(name, shape)| {
            let len = u16::try_from(shape.iter().product::<usize>()).unwrap();
            let values = (0..len).map(f32::from).collect();
            ((*name).to_owned(), ArrayD::from_shape_vec(IxDyn(shape), values).unwrap())
        })
        .collect()
}

/// Our names for theirs, in the order given.
fn ours(source: WeightSource, theirs: &[&str]) -> Result<Vec<String>> {
    let tensors: Vec<_> = (0_u8..).zip(theirs).map(|(index, name)| (*name, f32::from(index))).collect();
    let tensors = tensors.iter().map(|(name, index)| ((*name).to_owned(), ArrayD::from_elem(IxDyn(&[1]), *index)));
    let state = StateDict::from_source(tensors, source)?;
    let mut names: Vec<_> = state.iter().map(|(name, array)| (array[0], name.to_owned())).collect();
    names.sort_by(|left, right| left.0.total_cmp(&right.0));
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

#[track_caller]
fn assert_names(source: WeightSource, pairs: &[(&str, &str)]) {
    let (theirs, expected): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    assert_eq!(ours(source, &theirs).unwrap(), expected, "{source}");
}

/// A parameter in a framework and here: their name and shape, our name and shape.
type Row = (String, Vec<usize>, String, Vec<usize>);

/// Element `index` of row `row`: exact in f32, and other than in any other row at the same index.
#[expect(clippy::cast_precision_loss, reason = "below 2^24")]
fn element(row: usize, index: usize) -> f32 {
    ((row * 65_537 + index) % (1 << 24)) as f32
}

/// A safetensors file with the rows' names and shapes.
fn file_of(rows: &[Row]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (row, (name, shape, ..)) in rows.iter().enumerate() {
        let start = data.len();
        data.extend((0..shape.iter().product()).flat_map(|index| element(row, index).to_le_bytes()));
        let info = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), info);
    }
    safetensors(serde_json::to_vec(&header).unwrap(), &data)
}

/// For each of our axes, which of theirs it is.
fn axes(source: WeightSource, (_, theirs, name, _): &Row) -> &'static [usize] {
    let is_tensorflow = matches!(source, WeightSource::Keras | WeightSource::TfSlim);
    match theirs.len() {
        1 => &[0],
        2 if is_tensorflow => &[0, 1],
        2 => &[1, 0],
        4 if name == "classifier.weight" && is_tensorflow => &[2, 3],
        4 if name == "classifier.weight" => &[1, 0],
        4 if is_tensorflow => &[0, 1, 2, 3],
        4 if name.ends_with(".depthwise.weight") => &[2, 3, 0, 1],
        4 => &[2, 3, 1, 0],
        rank => panic!("`{name}` has {rank} axes"),
    }
}

/// Loads a file with a framework's names strictly, and compares every element with where it was there.
fn assert_golden(key: &str, source: WeightSource, rows: &[Row], mut net: Network<f32>) {
    let state = StateDict::<f32>::from_bytes(&file_of(rows), source).unwrap();
    let report = net.load(&state, LoadMode::Strict).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert_eq!(report.loaded, rows.len(), "{key}");
    let state = net.state_dict();
    for (index, row) in rows.iter().enumerate() {
        let (theirs, their_shape, ours, shape) = row;
        let array = state.get(ours).unwrap_or_else(|| panic!("{key}: `{theirs}` did not become `{ours}`"));
        assert_eq!(array.shape(), shape, "{key}: `{theirs}`, `{ours}`");
        let axes = axes(source, row);
        let steps: Vec<usize> = axes.iter().map(|&axis| their_shape[axis + 1..].iter().product()).collect();
        for (at, &value) in array.indexed_iter() {
            let flat: usize = at.slice().iter().zip(&steps).map(|(at, step)| at * step).sum();
            assert_eq!(value, element(index, flat), "{key}: `{theirs}`, `{ours}` at {at:?}");
        }
    }
}

#[test]
fn golden_names_load_strictly_with_every_element_in_its_place() {
    let golden: BTreeMap<String, Vec<Row>> = serde_json::from_str(include_str!("../../golden/names.json")).unwrap();
    let sources = [
        ("torchvision_v2", WeightSource::Torchvision),
        ("timm_v1", WeightSource::Timm),
        ("timm_v2", WeightSource::Timm),
        ("hf_v1", WeightSource::HuggingFace),
        ("hf_v2", WeightSource::HuggingFace),
        ("slim_v1", WeightSource::TfSlim),
        ("keras_v1", WeightSource::Keras),
        ("keras_v2", WeightSource::Keras),
    ];
    assert_eq!(golden.len(), sources.len());
    for (key, source) in sources {
        let classes = source.imagenet_classes();
        let net = if key.ends_with("_v1") {
            MobileNetV1::builder()
                .source(source)
                .classes(classes)
                .initializer(Initializer::Zeros)
                .build()
                .unwrap()
                .into()
        } else {
            MobileNetV2::builder()
                .source(source)
                .classes(classes)
                .initializer(Initializer::Zeros)
                .build()
                .unwrap()
                .into()
        };
        assert_golden(key, source, &golden[key], net);
    }
}

#[test]
fn pytorch_orders_become_ours() {
    let theirs = arrays(&[
        ("features.0.0.weight", &[4, 3, 2, 5]),
        ("features.1.conv.0.0.weight", &[6, 1, 3, 3]),
        ("classifier.1.weight", &[7, 4]),
        ("classifier.1.bias", &[7]),
    ]);
    let state = StateDict::from_source(theirs.clone(), WeightSource::Torchvision).unwrap();
    let (dense, theirs_dense) = (state.get("features.0.weight").unwrap(), &theirs[0].1);
    assert_eq!(dense.shape(), [2, 5, 3, 4]);
    for (at, &value) in dense.indexed_iter() {
        assert_eq!(value, theirs_dense[[at[3], at[2], at[0], at[1]]]);
    }
    let depthwise = state.get("features.1.depthwise.weight").unwrap();
    assert_eq!(depthwise.shape(), [3, 3, 1, 6]);
    assert_eq!(depthwise[[1, 2, 0, 4]], theirs[1].1[[4, 0, 1, 2]]);
    let linear = state.get("classifier.weight").unwrap();
    assert_eq!(linear.shape(), [4, 7]);
    assert_eq!(linear[[2, 5]], theirs[2].1[[5, 2]]);
    assert!(state.iter().all(|(_, array)| array.is_standard_layout()));
}

#[test]
fn tensorflow_orders_are_ours_already() {
    let theirs = arrays(&[
        ("Conv2d_0/weights", &[3, 3, 3, 4]),
        ("Conv2d_1_depthwise/depthwise_weights", &[3, 3, 4, 2]),
        ("Logits/Conv2d_1c_1x1/weights", &[1, 1, 4, 7]),
    ]);
    let state = StateDict::from_source(theirs.clone(), WeightSource::TfSlim).unwrap();
    assert_eq!(state.get("features.0.weight"), Some(&theirs[0].1));
    assert_eq!(state.get("features.1.depthwise.weight"), Some(&theirs[1].1));
    let classifier = state.get("classifier.weight").unwrap();
    assert_eq!(classifier.shape(), [4, 7]);
    assert_eq!(classifier[[3, 6]], theirs[2].1[[0, 0, 3, 6]]);
}

#[test]
fn arrays_of_another_rank_stay_as_they_are() {
    let theirs = arrays(&[("classifier.weight", &[2, 3, 4]), ("conv_stem.weight", &[5])]);
    let state = StateDict::from_source(theirs, WeightSource::Timm).unwrap();
    assert_eq!(state.get("classifier.weight").unwrap().shape(), [2, 3, 4]);
    assert_eq!(state.get("features.0.weight").unwrap().shape(), [5]);
}

#[test]
fn timm_blocks_are_numbered_by_the_file() {
    // Two, one and two blocks: no published net.
    assert_names(
        WeightSource::Timm,
        &[
            ("blocks.0.0.conv_dw.weight", "features.1.depthwise.weight"),
            ("blocks.0.0.conv_pw.weight", "features.1.project.weight"),
            ("blocks.0.0.bn2.running_var", "features.1.project.bn.running_var"),
            ("blocks.0.1.conv_pw.weight", "features.2.expand.weight"),
            ("blocks.0.1.conv_pwl.weight", "features.2.project.weight"),
            ("blocks.1.0.conv_dw.weight", "features.3.depthwise.weight"),
            ("blocks.1.0.bn1.weight", "features.3.expand.bn.weight"),
            ("blocks.1.0.conv_pwl.weight", "features.3.project.weight"),
            ("blocks.2.1.bn3.bias", "features.5.project.bn.bias"),
            ("blocks.2.1.conv_pwl.weight", "features.5.project.weight"),
            ("conv_head.weight", "features.6.weight"),
            ("bn2.weight", "features.6.bn.weight"),
        ],
    );
}

#[test]
fn timm_v1_has_pointwise_units_and_keeps_a_head_it_does_not_know() {
    assert_names(
        WeightSource::Timm,
        &[
            ("bn1.weight", "features.0.bn.weight"),
            ("blocks.0.0.conv_pw.weight", "features.1.pointwise.weight"),
            ("blocks.1.0.bn2.bias", "features.2.pointwise.bn.bias"),
            ("conv_head.weight", "conv_head.weight"),
            ("bn2.weight", "bn2.weight"),
        ],
    );
}

#[test]
fn timm_blocks_with_a_gap_are_refused() {
    for theirs in [
        &["blocks.1.0.conv_dw.weight"][..],
        &["blocks.0.0.conv_dw.weight", "blocks.2.0.conv_dw.weight"],
        &["blocks.0.4294967294.conv_dw.weight", "blocks.1.4294967294.conv_dw.weight"],
    ] {
        assert!(matches!(ours(WeightSource::Timm, theirs), Err(Error::Format { .. })));
    }
}

#[test]
fn torchvision_blocks_without_expansion_are_told_by_their_names() {
    assert_names(
        WeightSource::Torchvision,
        &[
            ("features.3.conv.0.0.weight", "features.3.depthwise.weight"),
            ("features.3.conv.1.weight", "features.3.project.weight"),
            ("features.3.conv.2.running_mean", "features.3.project.bn.running_mean"),
            ("features.4.conv.0.0.weight", "features.4.expand.weight"),
            ("features.4.conv.1.0.weight", "features.4.depthwise.weight"),
            ("features.4.conv.1.1.bias", "features.4.depthwise.bn.bias"),
            ("features.4.conv.2.weight", "features.4.project.weight"),
            ("features.4.conv.3.weight", "features.4.project.bn.weight"),
        ],
    );
}

#[test]
fn hugging_face_names_come_with_or_without_the_base_model() {
    assert_names(
        WeightSource::HuggingFace,
        &[
            ("mobilenet_v1.conv_stem.normalization.bias", "features.0.bn.bias"),
            ("mobilenet_v1.layer.24.convolution.weight", "features.13.depthwise.weight"),
            ("layer.25.convolution.weight", "features.13.pointwise.weight"),
        ],
    );
    assert_names(
        WeightSource::HuggingFace,
        &[
            ("mobilenet_v2.conv_stem.reduce_1x1.convolution.weight", "features.1.project.weight"),
            ("layer.3.expand_1x1.convolution.weight", "features.5.expand.weight"),
            ("mobilenet_v2.conv_1x1.normalization.running_mean", "features.6.bn.running_mean"),
        ],
    );
}

#[test]
fn slim_v2_names_are_numbered_by_the_file() {
    assert_names(
        WeightSource::TfSlim,
        &[
            ("MobilenetV2/Conv/weights", "features.0.weight"),
            ("MobilenetV2/expanded_conv/depthwise/depthwise_weights", "features.1.depthwise.weight"),
            ("MobilenetV2/expanded_conv/project/BatchNorm/beta", "features.1.project.bn.bias"),
            ("MobilenetV2/expanded_conv_16/expand/weights", "features.17.expand.weight"),
            ("MobilenetV2/Conv_1/BatchNorm/moving_variance", "features.18.bn.running_var"),
            ("MobilenetV2/Logits/Conv2d_1c_1x1/biases", "classifier.bias"),
        ],
    );
}

#[test]
fn slim_prefers_moving_averages_and_ignores_slots() {
    let tensors = ["", "/ExponentialMovingAverage", "/RMSProp", "/RMSProp_1", "/Momentum"].map(|ending| {
        let value = if ending == "/ExponentialMovingAverage" { 1.0_f32 } else { 0.0 };
        (format!("MobilenetV2/Conv/weights{ending}"), ArrayD::from_elem(IxDyn(&[1]), value))
    });
    let others = ["global_step", "MobilenetV2/Conv/BatchNorm/moving_mean/local_step"]
        .map(|name| (name.to_owned(), ArrayD::zeros(IxDyn(&[]))));
    let state = StateDict::from_source(tensors.into_iter().chain(others), WeightSource::TfSlim).unwrap();
    assert_eq!(state.iter().map(|(name, array)| (name, array[0])).collect::<Vec<_>>(), [("features.0.weight", 1.0)]);
}

#[test]
fn keras_names_come_in_every_form_exporters_write() {
    for name in [
        "conv_dw_1/depthwise_kernel:0",
        "conv_dw_1/kernel",
        "conv_dw_1.depthwise_kernel",
        "conv_dw_1/conv_dw_1/depthwise_kernel:0",
        "model_weights/conv_dw_1/conv_dw_1/depthwise_kernel:0",
    ] {
        assert_names(WeightSource::Keras, &[(name, "features.1.depthwise.weight")]);
    }
    assert_names(
        WeightSource::Keras,
        &[
            ("conv_dw_3_bn/gamma:0", "features.3.depthwise.bn.weight"),
            ("conv_pw_13/kernel:0", "features.13.pointwise.weight"),
            ("conv_preds/bias:0", "classifier.bias"),
        ],
    );
    assert_names(
        WeightSource::Keras,
        &[
            ("bn_Conv1/moving_mean:0", "features.0.bn.running_mean"),
            ("expanded_conv_project_BN/beta:0", "features.1.project.bn.bias"),
            ("block_16_project/kernel:0", "features.17.project.weight"),
            ("Conv_1/kernel:0", "features.18.weight"),
            ("Conv_1_bn/moving_variance:0", "features.18.bn.running_var"),
            ("Logits/kernel:0", "classifier.weight"),
        ],
    );
}

#[test]
fn unknown_names_are_kept() {
    let strange = [
        "",
        ".",
        "features",
        "features.x.0.weight",
        "features.01.0.weight",
        "features.+1.0.weight",
        "features.99999999999.0.weight",
        "features.2.conv.9.0.weight",
        "features.2.conv.9.weight",
        "features.2.conv",
        "classifier.1.scale",
        "blocks.0.0.se.weight",
        "layer.0.other.convolution.weight",
        "expanded_conv_x/expand/weights",
        "Conv2d_1_other/weights",
        "block_1_other/kernel",
        "conv_dw_x/kernel",
        "conv1/gamma",
        "conv1/bias",
    ];
    for source in WeightSource::ALL {
        let names = ours(source, &strange).unwrap();
        assert_eq!(names, strange, "{source}");
    }
}

#[test]
fn counters_are_dropped_and_prefixes_of_parallel_training_ignored() {
    for source in [WeightSource::Torchvision, WeightSource::Timm, WeightSource::HuggingFace] {
        assert_names(source, &[("module.classifier.bias", "classifier.bias")]);
        assert!(ours(source, &["module.x.num_batches_tracked", "num_batches_tracked"]).unwrap().is_empty());
        // Not a prefix if only some names have it.
        assert_names(source, &[("module.classifier.bias", "module.classifier.bias"), ("x", "x")]);
    }
}

#[test]
fn two_names_for_one_parameter_are_refused() {
    for (source, theirs) in [
        (WeightSource::Torchvision, ["classifier.1.weight", "classifier.weight"]),
        (WeightSource::HuggingFace, ["mobilenet_v1.conv_stem.convolution.weight", "conv_stem.convolution.weight"]),
        (WeightSource::TfSlim, ["MobilenetV1/Conv2d_0/weights", "Conv2d_0/weights"]),
        (WeightSource::Keras, ["conv_dw_1/kernel", "conv_dw_1/depthwise_kernel"]),
        (WeightSource::Timm, ["x", "x"]),
    ] {
        assert!(matches!(ours(source, &theirs), Err(Error::Format { .. })), "{source}");
    }
}
