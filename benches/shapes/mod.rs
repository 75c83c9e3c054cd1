//! The kernel calls of the published networks at 224x224, each ready to run on any SIMD level.
#![allow(dead_code, reason = "each bench uses its part")]

use std::fmt;

use mobilenet::kernels::{
    Clamp, Group, PackedDepthwise, PackedWeights, Pixels, PixelsMut, conv, conv_scratch_len, depthwise,
    depthwise_scratch_len, global_average, linear, pointwise,
};
use mobilenet::models::{MOBILENET_V1_STAGES, MOBILENET_V2_STAGES};
use mobilenet::source::Rounding;
use mobilenet::{Padding, SimdLevel, Window};

/// A kernel call with its weights packed: runs once, from an input to an output.
pub(crate) type Run = Box<dyn FnMut(&[f32], &mut [f32])>;

/// What follows a pointwise convolution's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Relu6,
    /// A linear projection.
    Nothing,
    /// A linear projection onto a residual.
    Add,
}

/// One kernel call; maps are square, `size` pixels wide at the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Stem { size: usize, outputs: usize },
    Depthwise { size: usize, channels: usize, kernel: usize, stride: usize },
    Pointwise { size: usize, inputs: usize, outputs: usize, after: After },
    GlobalAverage { size: usize, channels: usize },
    Linear { inputs: usize, outputs: usize },
}

impl Call {
    pub(crate) fn multiply_adds(self) -> u64 {
        let product = |factors: &[usize]| factors.iter().map(|&factor| factor as u64).product();
        match self {
            Self::Stem { size, outputs } => product(&[size / 2, size / 2, 27, outputs]),
            Self::Depthwise { size, channels, kernel, stride } => {
                product(&[size.div_ceil(stride), size.div_ceil(stride), kernel, kernel, channels])
            }
            Self::Pointwise { size, inputs, outputs, .. } => product(&[size, size, inputs, outputs]),
            // One addition per element stands in for a multiply-add.
            Self::GlobalAverage { size, channels } => product(&[size, size, channels]),
            Self::Linear { inputs, outputs } => product(&[inputs, outputs]),
        }
    }

    /// Floats of its input and its output.
    pub(crate) fn lengths(self) -> [usize; 2] {
        match self {
            Self::Stem { size, outputs } => [size * size * 3, size * size / 4 * outputs],
            Self::Depthwise { size, channels, stride, .. } => {
                [size * size * channels, size.div_ceil(stride).pow(2) * channels]
            }
            Self::Pointwise { size, inputs, outputs, .. } => [size * size * inputs, size * size * outputs],
            Self::GlobalAverage { size, channels } => [size * size * channels, channels],
            Self::Linear { inputs, outputs } => [inputs, outputs],
        }
    }

    /// The call with weights packed for a level.
    pub(crate) fn prepare(self, level: SimdLevel) -> Run {
        let values = |count: usize| (0..count).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect::<Vec<f32>>();
        let relu6 = Clamp::relu6();
        match self {
            Self::Stem { size, outputs } => {
                let g = Window::new(3, Padding::Symmetric(1)).stride(2).over([size; 2]).unwrap();
                let (weight, bias) = (values(27 * outputs), values(outputs));
                let mut packed = vec![0.0; PackedWeights::len(level, 27, outputs)];
                let mut scratch = vec![0.0; conv_scratch_len(&g, 3)];
                let _ = PackedWeights::pack(level, Pixels::dense(&weight, [1, 27], outputs), Some(&bias), &mut packed);
                Box::new(move |input, output| {
                    let weights = PackedWeights::from_packed(level, 27, outputs, &packed);
                    let group = Group { weights, first_input: 0, inputs: 3 };
                    let input = Pixels::dense(input, [size, size], 3);
                    let mut output = PixelsMut::dense(output, g.output, outputs);
                    conv(&g, &group, input, relu6, 0, &mut output, &mut scratch);
                })
            }
            Self::Depthwise { size, channels, kernel, stride } => {
                let g = Window::new(kernel, Padding::Symmetric(kernel / 2)).stride(stride).over([size; 2]).unwrap();
                let (weight, bias) = (values(g.taps() * channels), values(channels));
                let mut packed = vec![0.0; PackedDepthwise::len(g.taps(), channels)];
                let mut scratch = vec![0.0; depthwise_scratch_len(&g)];
                let _ = PackedDepthwise::pack(g.taps(), channels, &weight, Some(&bias), &mut packed);
                Box::new(move |input, output| {
                    let weights = PackedDepthwise::from_packed(g.taps(), channels, &packed);
                    let input = Pixels::dense(input, [size, size], channels);
                    let mut output = PixelsMut::dense(output, g.output, channels);
                    depthwise(level, &g, &weights, input, relu6, 0, &mut output, &mut scratch);
                })
            }
            Self::Pointwise { size, inputs, outputs, after } => {
                let rows = size * size;
                let (weight, bias) = (values(inputs * outputs), values(outputs));
                let added = (after == After::Add).then(|| values(rows * outputs));
                let clamp = if after == After::Relu6 { relu6 } else { Clamp::none() };
                let mut packed = vec![0.0; PackedWeights::len(level, inputs, outputs)];
                let _ =
                    PackedWeights::pack(level, Pixels::dense(&weight, [1, inputs], outputs), Some(&bias), &mut packed);
                Box::new(move |input, output| {
                    let weights = PackedWeights::from_packed(level, inputs, outputs, &packed);
                    let added = added.as_ref().map(|added| Pixels::dense(added, [1, rows], outputs));
                    let mut output = PixelsMut::dense(output, [1, rows], outputs);
                    pointwise(&weights, Pixels::dense(input, [1, rows], inputs), added, clamp, &mut output);
                })
            }
            Self::GlobalAverage { size, channels } => {
                Box::new(move |input, output| global_average(Pixels::dense(input, [size, size], channels), output))
            }
            Self::Linear { inputs, outputs } => {
                let (weight, bias) = (values(inputs * outputs), values(outputs));
                Box::new(move |input, output| linear(level, input, &weight, Some(&bias), Clamp::none(), output))
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Stem { size, outputs } => write!(f, "f32-conv3x3s2-relu6 {size}x{size}x3->{outputs}"),
            Self::Depthwise { size, channels, kernel, stride } => {
                write!(f, "f32-dw{kernel}x{kernel}s{stride}-relu6 {size}x{size}x{channels}")
            }
            Self::Pointwise { size, inputs, outputs, after } => {
                let after = match after {
                    After::Relu6 => "-relu6",
                    After::Nothing => "",
                    After::Add => "-add",
                };
                write!(f, "f32-pw{after} {size}x{size}x{inputs}->{outputs}")
            }
            Self::GlobalAverage { size, channels } => write!(f, "f32-gap {size}x{size}x{channels}"),
            Self::Linear { inputs, outputs } => write!(f, "f32-linear {inputs}->{outputs}"),
        }
    }
}

/// The calls of `v1_100`, `v2_100` or `v2_035`, in the order of the network.
pub(crate) fn calls(model: &str) -> Vec<Call> {
    match model {
        "v1_100" => v1(),
        "v2_100" => v2(1.0),
        "v2_035" => v2(0.35),
        _ => panic!("unknown model {model}: expected v1_100, v2_100 or v2_035"),
    }
}

fn v1() -> Vec<Call> {
    let mut calls = vec![Call::Stem { size: 224, outputs: 32 }];
    let (mut size, mut channels) = (112, 32);
    for stage in &MOBILENET_V1_STAGES {
        for repeat in 0..stage.repeats {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            calls.push(Call::Depthwise { size, channels, kernel: stage.kernel_size, stride });
            size /= stride;
            calls.push(Call::Pointwise { size, inputs: channels, outputs: stage.width, after: After::Relu6 });
            channels = stage.width;
        }
    }
    calls.extend([Call::GlobalAverage { size, channels }, Call::Linear { inputs: channels, outputs: 1000 }]);
    calls
}

fn v2(alpha: f64) -> Vec<Call> {
    let scale = |width| Rounding::Divisible { divisor: 8 }.scale(width, alpha);
    let mut channels = scale(32);
    let mut calls = vec![Call::Stem { size: 224, outputs: channels }];
    let mut size = 112;
    for stage in &MOBILENET_V2_STAGES {
        for repeat in 0..stage.repeats {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            let (hidden, outputs) = (channels * stage.expansion, scale(stage.width));
            if stage.expansion > 1 {
                calls.push(Call::Pointwise { size, inputs: channels, outputs: hidden, after: After::Relu6 });
            }
            calls.push(Call::Depthwise { size, channels: hidden, kernel: stage.kernel_size, stride });
            size /= stride;
            let after = if stride == 1 && channels == outputs { After::Add } else { After::Nothing };
            calls.push(Call::Pointwise { size, inputs: hidden, outputs, after });
            channels = outputs;
        }
    }
    calls.extend([
        Call::Pointwise { size, inputs: channels, outputs: 1280, after: After::Relu6 },
        Call::GlobalAverage { size, channels: 1280 },
        Call::Linear { inputs: 1280, outputs: 1000 },
    ]);
    calls
}
