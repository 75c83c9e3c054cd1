//! Whole networks against published and computed facts: sizes, widths, strides, names.

use mobilenet::layers::{Initializer, Layer, LoadMode, StateDict};
use mobilenet::models::{
    BottleneckStage, Head, MOBILENET_V2_STAGES, MobileNetV1Builder, MobileNetV2Builder, Network, SeparableStage,
};
use mobilenet::source::Rounding;
use mobilenet::{Architecture, Error, MobileNetV1, MobileNetV2, Padding, Runtime, Tensor, WeightSource};

/// A builder whose weights cost nothing.
fn v1(alpha: f64) -> MobileNetV1Builder<f32> {
    MobileNetV1::builder().alpha(alpha).initializer(Initializer::Zeros)
}

fn v2(alpha: f64) -> MobileNetV2Builder<f32> {
    MobileNetV2::builder().alpha(alpha).initializer(Initializer::Zeros)
}

/// Output channels of every feature block.
fn widths(net: &Network<f32>) -> Vec<usize> {
    let mut shape = [1, 224, 224, 3];
    let mut widths = Vec::new();
    for (_, block) in net.features().iter() {
        shape = block.output_shape(shape).unwrap();
        widths.push(shape[3]);
    }
    widths
}

#[test]
fn v1_parameters_and_multiply_adds_equal_the_computed_ones_for_every_checkpoint() {
    for (alpha, parameters, rows) in [
        (1.0, 4_231_976, [(224, 568_740_352), (192, 418_121_728), (160, 290_675_200), (128, 186_400_768)]),
        (0.75, 2_585_560, [(224, 325_400_448), (192, 239_273_472), (160, 166_396_800), (128, 106_770_432)]),
        (0.5, 1_331_592, [(224, 149_497_088), (192, 109_970_432), (160, 76_524_800), (128, 49_160_192)]),
        (0.25, 470_072, [(224, 41_030_272), (192, 30_212_608), (160, 21_059_200), (128, 13_570_048)]),
    ] {
        let net = v1(alpha).build().unwrap();
        for (side, multiply_adds) in rows {
            let summary = net.summary([1, side, side, 3]).unwrap();
            assert_eq!(summary.parameters(), parameters, "alpha {alpha}");
            assert_eq!(summary.multiply_adds(), multiply_adds, "alpha {alpha} at {side}");
            assert_eq!(net.multiply_adds([1, side, side, 3]).unwrap(), multiply_adds);
        }
    }
}

#[test]
fn v2_parameters_and_multiply_adds_equal_the_computed_ones_for_every_checkpoint() {
    for (alpha, parameters, rows) in [
        (1.4, 6_108_776, &[(224, 582_195_824)][..]),
        (1.3, 5_386_792, &[(224, 509_374_560)]),
        (
            1.0,
            3_504_872,
            &[(224, 300_774_272), (192, 221_316_608), (160, 154_083_200), (128, 99_074_048), (96, 56_289_152)],
        ),
        (
            0.75,
            2_636_424,
            &[(224, 209_069_792), (192, 153_941_888), (160, 107_295_200), (128, 69_129_728), (96, 39_445_472)],
        ),
        (
            0.5,
            1_968_680,
            &[(224, 97_131_840), (192, 71_701_760), (160, 50_184_000), (128, 32_578_560), (96, 18_885_440)],
        ),
        (
            0.35,
            1_677_128,
            &[(224, 59_285_808), (192, 43_896_512), (160, 30_874_800), (128, 20_220_672), (96, 11_934_128)],
        ),
    ] {
        let net = v2(alpha).build().unwrap();
        for &(side, multiply_adds) in rows {
            let summary = net.summary([1, side, side, 3]).unwrap();
            assert_eq!(summary.parameters(), parameters, "alpha {alpha}");
            assert_eq!(summary.multiply_adds(), multiply_adds, "alpha {alpha} at {side}");
        }
    }
}

#[test]
fn v1_base_equals_slims_worked_example_at_three_quarters_and_128() {
    let base = v1(0.75).head(Head::FeatureMap).build().unwrap();
    let summary = base.summary([1, 128, 128, 3]).unwrap();
    let weights: usize = StateDict::of(&*base, None)
        .iter()
        .filter_map(|(name, array)| (name.ends_with("weight") && !name.contains("bn")).then_some(array.len()))
        .sum();
    assert_eq!(weights, 1_800_144);
    assert_eq!(summary.multiply_adds(), 106_002_432);
}

#[test]
fn running_statistics_are_counted_apart() {
    let summary = v1(1.0).build().unwrap().summary([1, 32, 32, 3]).unwrap();
    assert_eq!(summary.running_statistics(), 21_888);
    let summary = v2(1.0).build().unwrap().summary([1, 32, 32, 3]).unwrap();
    assert_eq!(summary.running_statistics(), 34_112);
    assert_eq!(v1(1.0).classes(1001).build().unwrap().parameter_count(), 4_233_001);
}

#[test]
fn v2_widths_equal_the_published_table_for_every_source() {
    for (alpha, table, last) in [
        (0.25, [8, 8, 8, 8, 16, 24, 40, 80], 1280),
        (0.35, [16, 8, 8, 16, 24, 32, 56, 112], 1280),
        (0.5, [16, 8, 16, 16, 32, 48, 80, 160], 1280),
        (0.75, [24, 16, 24, 24, 48, 72, 120, 240], 1280),
        (1.0, [32, 16, 24, 32, 64, 96, 160, 320], 1280),
        (1.3, [40, 24, 32, 40, 80, 128, 208, 416], 1664),
        (1.4, [48, 24, 32, 48, 88, 136, 224, 448], 1792),
    ] {
        let mut expected = vec![table[0]];
        for (stage, width) in MOBILENET_V2_STAGES.iter().zip(&table[1..]) {
            expected.extend(std::iter::repeat_n(*width, stage.repeats));
        }
        expected.push(last);
        for source in WeightSource::ALL {
            let net = v2(alpha).source(source).build().unwrap();
            assert_eq!(widths(&net), expected, "alpha {alpha} {source}");
        }
    }
}

#[test]
fn v1_widths_are_cut_by_slim_and_keras_and_rounded_by_timm() {
    let widths = |alpha, source| widths(&v1(alpha).source(source).build().unwrap());
    for source in WeightSource::ALL {
        assert_eq!(widths(0.5, source), [16, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512]);
    }
    // All are multiples of 8 at the published widths, and at 1.3 and 1.4 where the rules differ.
    for (alpha, [stem, second, third, fourth, fifth, last]) in
        [(0.25, [8, 16, 32, 64, 128, 256]), (0.75, [24, 48, 96, 192, 384, 768]), (1.0, [32, 64, 128, 256, 512, 1024])]
    {
        let expected =
            [stem, second, third, third, fourth, fourth, fifth, fifth, fifth, fifth, fifth, fifth, last, last];
        for source in WeightSource::ALL {
            assert_eq!(widths(alpha, source), expected, "{alpha} {source:?}");
        }
    }
    for (alpha, expected) in [
        (0.35, [11, 22, 44, 44, 89, 89, 179, 179, 179, 179, 179, 179, 358, 358]),
        (1.3, [41, 83, 166, 166, 332, 332, 665, 665, 665, 665, 665, 665, 1331, 1331]),
        (1.4, [44, 89, 179, 179, 358, 358, 716, 716, 716, 716, 716, 716, 1433, 1433]),
    ] {
        assert_eq!(widths(alpha, WeightSource::Keras), expected, "{alpha}");
        assert_eq!(widths(alpha, WeightSource::TfSlim), expected, "{alpha}");
    }
    assert_eq!(widths(1.4, WeightSource::Timm)[..6], [48, 88, 176, 176, 360, 360]);
    assert_eq!(widths(0.7, WeightSource::TfSlim)[..3], [22, 44, 89]);
    assert_eq!(widths(0.7, WeightSource::Timm)[..3], [24, 48, 88]);
    assert_eq!(widths(0.1, WeightSource::TfSlim)[..3], [8, 8, 12]);
    assert_eq!(widths(0.1, WeightSource::Keras)[..3], [3, 6, 12]);
}

#[test]
fn rules_saturate_at_absurd_sizes() {
    for rounding in [Rounding::Divisible { divisor: 8 }, Rounding::KerasDivisible { divisor: 8 }] {
        assert!(rounding.scale(1, 1e300) > usize::MAX / 2, "{rounding:?}");
    }
    for source in WeightSource::ALL {
        let _ = source.padding(Architecture::MobileNetV2, 0, 2, false);
    }
}

#[test]
fn keras_v2_rounding_differs_from_torchvisions_at_the_known_alphas_alone() {
    let differs = |hundredths: u32| {
        let alpha = f64::from(hundredths) / 100.0;
        let scale = |rounding: Rounding| MOBILENET_V2_STAGES.map(|stage| rounding.scale(stage.width, alpha));
        scale(Rounding::KerasDivisible { divisor: 8 }) != scale(Rounding::Divisible { divisor: 8 })
    };
    let found: Vec<u32> = (10..300).filter(|&alpha| differs(alpha)).collect();
    assert_eq!(found, [14, 28, 42, 56, 84, 112, 149, 167, 168, 223, 224]);
    let width = |source| widths(&v2(0.28).source(source).build().unwrap());
    assert_ne!(width(WeightSource::Keras), width(WeightSource::Torchvision));
}

#[test]
fn stages_of_ones_own_become_the_network() {
    let stages = [
        BottleneckStage { kernel_size: 5, expansion: 1, width: 16, repeats: 2, stride: 1 },
        BottleneckStage { kernel_size: 7, expansion: 3, width: 24, repeats: 1, stride: 2 },
    ];
    let net = v2(1.0).stages(stages).classes(4).build().unwrap();
    assert_eq!(widths(&net), [32, 16, 16, 24, 1280]);
    assert_eq!(net.block_strides(), [2, 2, 2, 4, 4]);
    assert_eq!(net.state_dict().get("features.3.depthwise.weight").unwrap().shape(), [7, 7, 48, 1]);
    assert_eq!(net.output_shape([3, 40, 32, 3]).unwrap(), [3, 1, 1, 4]);

    let stages = [SeparableStage { kernel_size: 5, width: 48, repeats: 2, stride: 2 }];
    let net = v1(0.5).in_channels(1).stages(stages).head(Head::FeatureMap).build().unwrap();
    assert_eq!(net.output_shape([1, 32, 32, 1]).unwrap(), [1, 8, 8, 24]);
}

#[test]
fn parameters_have_the_documented_names() {
    let names = |net: &Network<f32>| {
        let mut names = Vec::new();
        net.visit("", &mut |name, _| names.push(name));
        names
    };
    let bn = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];
    let conv =
        |prefix: &str| std::iter::once("weight").chain(bn).map(|name| format!("{prefix}.{name}")).collect::<Vec<_>>();
    let mut expected = conv("features.0");
    for block in 1..=13 {
        expected.extend(["depthwise", "pointwise"].map(|part| conv(&format!("features.{block}.{part}"))).concat());
    }
    expected.extend(["classifier.weight".into(), "classifier.bias".into()]);
    assert_eq!(names(&v1(0.25).build().unwrap()), expected);

    let mut expected = conv("features.0");
    for block in 1..=17 {
        let parts: &[&str] = if block == 1 { &["depthwise", "project"] } else { &["expand", "depthwise", "project"] };
        expected.extend(parts.iter().flat_map(|part| conv(&format!("features.{block}.{part}"))));
    }
    expected.extend(conv("features.18"));
    expected.extend(["classifier.weight".into(), "classifier.bias".into()]);
    assert_eq!(names(&v2(0.35).build().unwrap()), expected);
}

#[test]
fn builder_refuses_what_makes_no_network() {
    fn refused<T: std::fmt::Debug>(result: Result<T, Error>) {
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    }
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e6, 1e300, f64::MAX] {
        refused(v1(alpha).build());
        refused(v2(alpha).build());
    }
    refused(v1(1.0).classes(0).build());
    refused(v2(1.0).classes(0).build());
    refused(v2(1.0).classes(usize::MAX).build());
    refused(v1(1.0).in_channels(0).build());
    refused(v2(1.0).in_channels(usize::MAX).build());
    refused(v2(1.0).dropout(1.0).build());
    refused(v2(1.0).dropout(f64::NAN).build());
    refused(v1(1.0).output_stride(4).build());
    refused(v2(1.0).output_stride(0).build());
    refused(v2(1.0).rounding(Rounding::Truncate { least: usize::MAX }).build());
    refused(v2(1.0).rounding(Rounding::Divisible { divisor: usize::MAX }).build());
    let stage = BottleneckStage { kernel_size: 3, expansion: 6, width: 16, repeats: 1, stride: 1 };
    for bad in [
        BottleneckStage { kernel_size: 0, ..stage },
        BottleneckStage { kernel_size: 4, ..stage },
        BottleneckStage { kernel_size: usize::MAX, ..stage },
        BottleneckStage { expansion: 0, ..stage },
        BottleneckStage { expansion: usize::MAX, ..stage },
        BottleneckStage { width: 0, ..stage },
        BottleneckStage { width: usize::MAX, ..stage },
        BottleneckStage { repeats: 0, ..stage },
        BottleneckStage { repeats: usize::MAX, ..stage },
        BottleneckStage { stride: 0, ..stage },
        BottleneckStage { stride: usize::MAX, ..stage },
    ] {
        for source in WeightSource::ALL {
            refused(v2(1.0).source(source).stages([bad]).build());
        }
    }
}

#[test]
fn any_positive_alpha_runs_from_32_pixels_up() {
    for alpha in [0.01, 0.1, 0.35] {
        let images = Tensor::zeros([1, 33, 32, 3]).unwrap();
        assert_eq!(v1(alpha).classes(3).build().unwrap().forward(&images).unwrap().shape(), [1, 1, 1, 3]);
        assert_eq!(v2(alpha).classes(3).build().unwrap().forward(&images).unwrap().shape(), [1, 1, 1, 3]);
    }
}

#[test]
fn output_shape_equals_forwards_for_every_source_and_odd_sizes() {
    for source in WeightSource::ALL {
        for [h, w] in [[32, 34], [33, 35]] {
            let images = Tensor::zeros([2, h, w, 3]).unwrap();
            let net = v1(0.05).source(source).head(Head::FeatureMap).build().unwrap();
            assert_eq!(net.output_shape(images.shape()).unwrap(), net.forward(&images).unwrap().shape());
            let net = v2(0.05).source(source).head(Head::FeatureMap).stages(&MOBILENET_V2_STAGES[..3]).build().unwrap();
            assert_eq!(net.output_shape(images.shape()).unwrap(), net.forward(&images).unwrap().shape());
        }
    }
}

#[test]
fn head_decides_the_output() {
    let images = Tensor::zeros([2, 32, 32, 3]).unwrap();
    for (head, shape) in [
        (Head::FeatureMap, [2, 4, 4, 1280]),
        (Head::AveragePool, [2, 1, 1, 1280]),
        (Head::MaxPool, [2, 1, 1, 1280]),
        (Head::Classifier, [2, 1, 1, 5]),
    ] {
        let net = v2(0.1).stages(&MOBILENET_V2_STAGES[..3]).head(head).classes(5).build().unwrap();
        assert_eq!(net.forward(&images).unwrap().shape(), shape, "{head:?}");
    }
}

#[test]
fn keras_v1_map_is_smaller_than_slims_at_an_odd_size() {
    let map = |source| v1(0.25).source(source).head(Head::FeatureMap).build().unwrap();
    let shape = [1, 33, 33, 3];
    assert_eq!(map(WeightSource::TfSlim).output_shape(shape).unwrap()[1..3], [2, 2]);
    assert_eq!(map(WeightSource::Keras).output_shape(shape).unwrap()[1..3], [1, 1]);
}

#[test]
fn output_stride_keeps_the_last_map_large_and_the_parameters_the_same() {
    for source in WeightSource::ALL {
        for stride in [8, 16, 32] {
            let side = 64 / stride;
            let net = v1(0.1).source(source).output_stride(stride).head(Head::FeatureMap).build().unwrap();
            assert_eq!(net.output_shape([1, 64, 64, 3]).unwrap()[1..3], [side; 2], "{source} {stride}");
            assert_eq!(net.block_strides().last(), Some(&stride));
            let net = v2(0.1).source(source).output_stride(stride).head(Head::FeatureMap).build().unwrap();
            assert_eq!(net.output_shape([1, 64, 64, 3]).unwrap()[1..3], [side; 2], "{source} {stride}");
            assert_eq!(net.parameter_count(), v2(0.1).head(Head::FeatureMap).build().unwrap().parameter_count());
        }
    }
}

/// TF-slim: the block whose stride is lost still has the dilation reached so far, the next ones the product. On
/// every other pixel the dense map then equals the strided one.
#[test]
fn output_stride_samples_to_the_strided_map() {
    let builder = || MobileNetV1::<f64>::builder().alpha(0.1).source(WeightSource::Torchvision).seed(3);
    let builder = || builder().initializer(Initializer::Timm).head(Head::FeatureMap);
    let images = Tensor::from_fn([1, 64, 64, 3], |[_, h, w, c]| ((h * 31 + w * 17 + c * 7) % 23) as f64 / 11.0 - 1.0);
    let images = images.unwrap();
    let strided = builder().build().unwrap().forward(&images).unwrap();
    let dense = builder().output_stride(16).build().unwrap().forward(&images).unwrap();
    for h in 0..2 {
        for w in 0..2 {
            for c in 0..strided.shape()[3] {
                let (a, b) = (strided.view()[[0, h, w, c]], dense.view()[[0, 2 * h, 2 * w, c]]);
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
        }
    }
    assert!(strided.as_slice().iter().any(|&value| value > 0.0));
}

#[test]
fn forward_features_equal_the_blocks_outputs_in_the_order_asked_for() {
    let net = MobileNetV2::<f32>::builder().alpha(0.1).seed(1).build().unwrap();
    let images = Tensor::from_fn([1, 32, 32, 3], |[_, h, w, c]| (h + 2 * w + 3 * c) as f32 / 50.0 - 1.0).unwrap();
    let maps = net.forward_features(&images, &[3, 0, 3], &Runtime::new()).unwrap();
    let first = net.features()[0].forward(&images).unwrap();
    let mut third = first.clone();
    for block in 1..=3 {
        third = net.features()[block].forward(&third).unwrap();
    }
    assert_eq!(maps, [third.clone(), first, third]);
    assert!(net.forward_features(&images, &[], &Runtime::new()).unwrap().is_empty());
    assert!(matches!(net.forward_features(&images, &[19], &Runtime::new()), Err(Error::Invalid { .. })));
    let last = net.block_strides().iter().rposition(|&stride| stride == 8).unwrap();
    assert_eq!(last, 6);
}

#[test]
fn seed_decides_every_weight() {
    let state = |seed| v2(0.1).initializer(Initializer::Torchvision).seed(seed).build().unwrap().state_dict();
    assert_eq!(state(7), state(7));
    let (seven, eight) = (state(7), state(8));
    for (name, array) in seven.iter().filter(|(name, _)| name.ends_with("weight") && !name.contains("bn")) {
        assert_ne!(Some(array), eight.get(name), "{name}");
    }
    let blocks = ["features.8.expand.weight", "features.9.expand.weight"].map(|name| seven.get(name).unwrap());
    assert_eq!(blocks[0].shape(), blocks[1].shape());
    assert_ne!(blocks[0], blocks[1]);
}

#[test]
fn loaded_weights_give_the_same_answers() {
    let builder = || MobileNetV2::<f32>::builder().alpha(0.1).classes(5);
    let trained = builder().seed(1).build().unwrap();
    let mut net = builder().initializer(Initializer::Zeros).build().unwrap();
    let report = net.load(trained.state_dict(), LoadMode::Strict).unwrap();
    assert!(report.is_exact());
    assert_eq!(report.loaded, trained.state_dict().len());
    let images = Tensor::from_fn([1, 32, 32, 3], |[_, h, w, c]| (h * w + c) as f32 / 500.0 - 1.0).unwrap();
    assert_eq!(net.forward(&images).unwrap(), trained.forward(&images).unwrap());
}

#[test]
fn strict_load_lists_every_difference_and_changes_nothing() {
    let mut net = v2(0.1).classes(5).build().unwrap();
    let before = net.state_dict();
    let mut state = MobileNetV2::<f32>::builder().alpha(0.1).classes(7).build().unwrap().state_dict();
    state.remove("features.4.project.bn.bias");
    state.insert("extra", mobilenet::ndarray::ArrayD::zeros(vec![1]));
    let Err(Error::StateMismatch(strict)) = net.load(&state, LoadMode::Strict) else { panic!("a mismatch") };
    assert_eq!(strict.missing, ["features.4.project.bn.bias"]);
    assert_eq!(strict.unexpected, ["extra"]);
    let misshapen: Vec<&str> = strict.misshapen.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(misshapen, ["classifier.weight", "classifier.bias"]);
    assert_eq!(net.state_dict(), before);
    assert_eq!(net.load(&state, LoadMode::Partial).unwrap(), strict);
    assert_eq!(net.state_dict().get("features.0.weight"), state.get("features.0.weight"));
}

#[test]
fn load_refuses_weights_of_another_convention() {
    let state = v2(0.1).source(WeightSource::Keras).build().unwrap().state_dict();
    let mut net = v2(0.1).source(WeightSource::Torchvision).build().unwrap();
    for mode in [LoadMode::Strict, LoadMode::Partial] {
        assert!(matches!(net.load(&state, mode), Err(Error::SourceMismatch { .. })));
    }
    // Keras' V1 pads its strided depthwise convolutions as nobody else does.
    let state = v1(0.25).source(WeightSource::Keras).build().unwrap().state_dict();
    let mut net = v1(0.25).build().unwrap();
    assert!(matches!(net.load(&state, LoadMode::Strict), Err(Error::SourceMismatch { .. })));
    // timm trains with torchvision's.
    let state = v2(0.1).source(WeightSource::Timm).build().unwrap().state_dict();
    assert!(v2(0.1).build().unwrap().load(&state, LoadMode::Strict).is_ok());
}

#[test]
fn source_binds_padding_epsilon_and_dropout() {
    let net = v2(0.25).source(WeightSource::Keras).build().unwrap();
    let debug = format!("{:?}", net.features());
    assert!(debug.contains("epsilon: 0.001") && !debug.contains("epsilon: 1e-5"));
    assert!(debug.contains(&format!("{:?}", Padding::Same)));
    let rate = |source| format!("{:?}", &v2(0.25).source(source).build().unwrap().head()[1]);
    assert_eq!(rate(WeightSource::Torchvision), "Dropout { rate: 0.2 }");
    assert_eq!(rate(WeightSource::Keras), "Dropout { rate: 0.0 }");
}

#[test]
fn wrong_inputs_are_errors() {
    let net = v2(0.1).build().unwrap();
    for shape in [[1, 32, 32, 1], [1, 0, 32, 3], [1, 32, 0, 3], [1, 32, 32, 0]] {
        assert!(net.forward(&Tensor::zeros(shape).unwrap()).is_err(), "{shape:?}");
        assert!(net.output_shape(shape).is_err() && net.summary(shape).is_err() && net.multiply_adds(shape).is_err());
    }
    assert_eq!(net.forward(&Tensor::zeros([0, 32, 32, 3]).unwrap()).unwrap().shape(), [0, 1, 1, 1000]);
    assert!(net.summary([usize::MAX; 4]).is_err());
    assert!(net.summary([usize::MAX, 224, 224, 3]).is_ok());
}

#[test]
fn summary_prints_one_aligned_line_per_layer_and_totals() {
    let text = v1(1.0).build().unwrap().summary([1, 224, 224, 3]).unwrap().to_string();
    let lines: Vec<&str> = text.lines().collect();
    // Head, rule, 27 convolutions, pool, dropout, classifier, rule, total, statistics.
    assert_eq!(lines.len(), 2 + 27 + 3 + 2 + 1);
    assert!(lines[..lines.len() - 1].iter().all(|line| line.len() == lines[0].len()), "{text}");
    assert!(lines[2].starts_with("features.0 ") && lines[2].contains("[1, 112, 112, 32]"));
    assert!(lines[33].contains("4,231,976") && lines[33].ends_with("568,740,352"), "{text}");
    assert!(lines[34].contains("21,888"));
}

#[cfg(feature = "serde")]
#[test]
fn saved_builders_rebuild_the_same_network() {
    let builder = MobileNetV2::<f32>::builder()
        .alpha(0.1)
        .source(WeightSource::Keras)
        .stages([BottleneckStage { kernel_size: 5, expansion: 2, width: 16, repeats: 2, stride: 2 }])
        .seed(9);
    let text = serde_json::to_string(&builder).unwrap();
    let again: MobileNetV2Builder<f32> = serde_json::from_str(&text).unwrap();
    assert_eq!(again, builder);
    assert_eq!(again.build().unwrap().state_dict(), builder.build().unwrap().state_dict());
}
