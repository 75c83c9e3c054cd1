//! The kernel calls of the published networks at 224x224, in the layouts that the engine gives them, each ready to run
//! on any SIMD level.
#![allow(dead_code, reason = "each bench uses a part")]

use std::fmt;
use std::time::{Duration, Instant};

use mobilenet::kernels::{
    BLOCK, Clamp, Group, KeptRows, PackedDepthwise, PackedWeights, PaddedRows, Pixels, PixelsMut, Strides, conv,
    conv_scratch_len, depthwise_in_place, global_average, linear, pointwise,
};
use mobilenet::models::{MOBILENET_V1_STAGES, MOBILENET_V2_STAGES};
use mobilenet::source::Rounding;
use mobilenet::{Padding, SimdLevel, Window};

/// Time spent on each kernel.
const BUDGET: Duration = Duration::from_millis(100);

/// Seconds that a run takes, in the middle of as many as fit.
pub(crate) fn median(mut run: impl FnMut()) -> f64 {
    run();
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < BUDGET || times.len() < 5 {
        let begin = Instant::now();
        run();
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A kernel call with its weights packed and its maps in place: runs once.
pub(crate) type Run = Box<dyn FnMut()>;

/// A map in blocks of channels, its rows `gap` pixels longer than the map is wide, on cache lines.
struct Map {
    data: Vec<f32>,
    start: usize,
    size: [usize; 2],
    channels: usize,
    strides: Strides,
}

impl Map {
    fn new(side: usize, channels: usize, gap: usize) -> Self {
        let row = (side + gap) * BLOCK;
        // The extra row is a depthwise convolution's row of zeros.
        let strides = Strides { row, pixel: BLOCK, block: (side + 1) * row };
        let data = vec![0.5; strides.block * channels.div_ceil(BLOCK) + BLOCK];
        let start = data.as_ptr().align_offset(BLOCK * size_of::<f32>());
        // Without gaps, rows of a block follow each other and are one row of tiles.
        Self { data, start, size: [side; 2], channels, strides }
    }

    fn pixels(&self) -> Pixels<'_, f32> {
        Pixels::strided(&self.data[self.start..], self.size, self.channels, self.strides)
    }

    fn pixels_mut(&mut self) -> PixelsMut<'_, f32> {
        PixelsMut::strided(&mut self.data[self.start..], self.size, self.channels, self.strides)
    }
}

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

    /// Bytes of its input, weights and output.
    pub(crate) fn bytes(self) -> usize {
        let floats = match self {
            Self::Stem { size, outputs } => size * size * 3 + 28 * outputs + size * size / 4 * outputs,
            Self::Depthwise { size, channels, kernel, stride } => {
                (size * size + kernel * kernel + 1 + size.div_ceil(stride).pow(2)) * channels
            }
            Self::Pointwise { size, inputs, outputs, after } => {
                let maps = inputs + outputs + if after == After::Add { outputs } else { 0 };
                size * size * maps + (inputs + 1) * outputs
            }
            Self::GlobalAverage { size, channels } => (size * size + 1) * channels,
            Self::Linear { inputs, outputs } => inputs + (inputs + 2) * outputs,
        };
        floats * size_of::<f32>()
    }

    /// The call with weights packed for a level.
    pub(crate) fn prepare(self, level: SimdLevel) -> Run {
        let values = |count: usize| (0..count).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect::<Vec<f32>>();
        let relu6 = Clamp::relu6();
        match self {
            Self::Stem { size, outputs } => {
                let g = Window::new(3, Padding::Symmetric(1)).stride(2).over([size; 2]).unwrap();
                let (weight, bias, input) = (values(27 * outputs), values(outputs), values(size * size * 3));
                let mut packed = vec![0.0; PackedWeights::len(level, 27, outputs)];
                let mut scratch = vec![0.0; conv_scratch_len(&g, 3)];
                let weight = Pixels::dense(&weight, [1, 27], outputs);
                let _ = PackedWeights::pack_blocked(level, weight, Some(&bias), &mut packed);
                let mut output = Map::new(size / 2, outputs, 2);
                Box::new(move || {
                    let weights = PackedWeights::from_packed_blocked(level, 27, outputs, &packed);
                    let group = Group { weights, first_input: 0, inputs: 3 };
                    let input = Pixels::dense(&input, [size, size], 3);
                    let mut kept = KeptRows::new(&g, 3, &mut scratch);
                    conv(&g, &group, input, relu6, 0, &mut output.pixels_mut(), &mut kept);
                })
            }
            Self::Depthwise { size, channels, kernel, stride } => {
                let g = Window::new(kernel, Padding::Symmetric(kernel / 2)).stride(stride).over([size; 2]).unwrap();
                let (weight, bias) = (values(g.taps() * channels), values(channels));
                let mut packed = vec![0.0; PackedDepthwise::len(g.taps(), channels)];
                let _ = PackedDepthwise::pack_blocked(g.taps(), channels, &weight, Some(&bias), &mut packed);
                let input = Map::new(size, channels, 2 * (kernel / 2));
                let mut output = Map::new(size.div_ceil(stride), channels, 0);
                Box::new(move || {
                    let weights = PackedDepthwise::from_packed_blocked(g.taps(), channels, &packed);
                    let rows = PaddedRows { data: &input.data[input.start..], places: size, strides: input.strides };
                    depthwise_in_place(level, &g, &weights, rows, relu6, 0, &mut output.pixels_mut());
                })
            }
            Self::Pointwise { size, inputs, outputs, after } => {
                let (weight, bias) = (values(inputs * outputs), values(outputs));
                let added = (after == After::Add).then(|| Map::new(size, outputs, 0));
                let clamp = if after == After::Relu6 { relu6 } else { Clamp::none() };
                let mut packed = vec![0.0; PackedWeights::len(level, inputs, outputs)];
                let weight = Pixels::dense(&weight, [1, inputs], outputs);
                let _ = PackedWeights::pack_blocked(level, weight, Some(&bias), &mut packed);
                let (input, mut output) = (Map::new(size, inputs, 0), Map::new(size, outputs, 0));
                Box::new(move || {
                    let weights = PackedWeights::from_packed_blocked(level, inputs, outputs, &packed);
                    let added = added.as_ref().map(Map::pixels);
                    pointwise(&weights, input.pixels(), added, clamp, &mut output.pixels_mut());
                })
            }
            Self::GlobalAverage { size, channels } => {
                let (input, mut output) = (Map::new(size, channels, 0), vec![0.0; channels]);
                Box::new(move || global_average(input.pixels(), &mut output))
            }
            Self::Linear { inputs, outputs } => {
                let (input, weight, bias) = (values(inputs), values(inputs * outputs), values(outputs));
                let mut output = vec![0.0; outputs];
                Box::new(move || linear(level, &input, &weight, Some(&bias), Clamp::none(), &mut output))
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
