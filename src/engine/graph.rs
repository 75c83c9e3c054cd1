//! What layers lower themselves into: a list of operators on values.
//!
//! A value is one feature map `[H, W, C]`; images of a batch pass one by one, so there is no batch axis. Operators come
//! in an order in which they can run. Weights stay in their layers until they are packed, one operator after another.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::kernels::Clamp;
use crate::shape::{Conv2dGeometry, element_count};
use crate::{Error, Result, Runtime, Tensor, Window};

/// A feature map that an operator gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub(super) usize);

/// The function of an operator that the engine does not know.
pub(super) type Function = dyn Fn(&Tensor<f32>, &Runtime) -> Result<Tensor<f32>> + Send + Sync;

/// Operators in order; see [`Layer::lower`](crate::Layer::lower).
#[derive(Debug)]
pub struct Graph<'a> {
    pub(super) sizes: Vec<[usize; 3]>,
    pub(super) nodes: Vec<Node<'a>>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) name: String,
    pub(super) operator: Operator<'a>,
    pub(super) input: Value,
    pub(super) residual: Option<Value>,
    pub(super) output: Value,
}

pub(super) enum Operator<'a> {
    Convolution(Box<Convolution<'a>>),
    GlobalAverage,
    GlobalMax,
    Clamp(Clamp<f32>),
    Softmax,
    Flatten,
    Opaque(&'static str, Arc<Function>),
}

impl fmt::Debug for Operator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Convolution(_) => "Convolution",
            Self::GlobalAverage => "GlobalAverage",
            Self::GlobalMax => "GlobalMax",
            Self::Clamp(_) => "Clamp",
            Self::Softmax => "Softmax",
            Self::Flatten => "Flatten",
            Self::Opaque(kind, _) => kind,
        })
    }
}

/// A convolution in the terms of [`Graph::convolution`].
pub struct Filter<'a> {
    /// Kernel, stride, dilation and padding.
    pub window: Window,
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Groups that channels are split into; as many as input channels, and more than one, is depthwise.
    pub groups: usize,
    /// Gives the weights.
    pub weights: Box<dyn Fn() -> FilterWeights<'a> + 'a>,
    /// The range of the outputs.
    pub clamp: Clamp<f32>,
}

/// What a [`Filter`] multiplies with and adds.
#[derive(Clone, Debug)]
pub struct FilterWeights<'a> {
    /// `[KH, KW, I / groups, O]`, or depthwise `[KH, KW, I, O / I]`.
    pub weight: Cow<'a, [f32]>,
    /// `[O]`: a factor for the weights of each output, of a normalisation that is folded in. Applied where the weights
    /// are packed, so that no scaled copy of them is made.
    pub scale: Option<Cow<'a, [f32]>>,
    /// `[O]`.
    pub bias: Cow<'a, [f32]>,
}

impl fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, channels, groups, clamp, .. } = self;
        write!(f, "Filter {{ {window:?}, channels: {channels:?}, groups: {groups}, {clamp:?} }}")
    }
}

#[derive(Debug)]
pub(super) struct Convolution<'a> {
    pub(super) filter: Filter<'a>,
    pub(super) geometry: Conv2dGeometry,
}

impl Convolution<'_> {
    pub(super) fn is_depthwise(&self) -> bool {
        let Filter { channels: [inputs, _], groups, .. } = self.filter;
        groups == inputs && groups > 1
    }

    /// Whether it only scales and shifts each channel.
    pub(super) fn is_norm(&self) -> bool {
        let (g, [inputs, outputs]) = (&self.geometry, self.filter.channels);
        let alone = g.taps() == 1 && g.stride == [1, 1] && g.output == g.input && g.before == [0, 0];
        alone && inputs == outputs && self.filter.groups == inputs
    }

    /// Whether it is a matrix product over pixels.
    pub(super) fn is_pointwise(&self) -> bool {
        let g = &self.geometry;
        self.filter.groups == 1 && g.taps() == 1 && g.stride == [1, 1] && g.output == g.input && g.before == [0, 0]
    }

    pub(super) fn multiply_adds(&self) -> u64 {
        let Filter { channels: [inputs, outputs], groups, .. } = self.filter;
        let sizes = [self.geometry.output_pixels(), self.geometry.taps(), inputs / groups, outputs];
        sizes.into_iter().fold(1, |product, size| product.saturating_mul(size as u64))
    }

    /// The kernel's id, as [`Layer::kernel`](crate::Layer::kernel) writes it, with the range of the outputs that it
    /// ends in.
    pub(super) fn kernel(&self, clamp: Clamp<f32>) -> String {
        let g = &self.geometry;
        let ([h, w], stride) = (g.kernel, g.stride[0]);
        let kind = match () {
            () if self.is_pointwise() => String::from("pw"),
            () if self.is_depthwise() => format!("dw{h}x{w}s{stride}"),
            () => format!("conv{h}x{w}s{stride}"),
        };
        let dilation = if g.dilation[0] > 1 { format!("d{}", g.dilation[0]) } else { String::new() };
        let groups = match self.filter.groups {
            groups if groups > 1 && !self.is_depthwise() => format!("g{groups}"),
            _ => String::new(),
        };
        let activation = match clamp {
            clamp if clamp == Clamp::relu6() => "-relu6",
            clamp if clamp == Clamp::relu() => "-relu",
            clamp if clamp == Clamp::none() => "",
            _ => "-clamp",
        };
        format!("f32-{kind}{dilation}{groups}{activation}")
    }
}

impl<'a> Graph<'a> {
    /// A graph without operators, and its input.
    pub(super) fn new(input: [usize; 3]) -> (Self, Value) {
        (Self { sizes: Vec::from([input]), nodes: Vec::new() }, Value(0))
    }

    /// Rows, columns and channels of a value.
    #[must_use]
    pub fn size(&self, value: Value) -> [usize; 3] {
        self.sizes[value.0]
    }

    /// Convolution, with `residual` added before the clamp; only a pointwise one takes a residual.
    ///
    /// # Errors
    ///
    /// If channels, groups, weights, window or residual do not fit.
    pub fn convolution(
        &mut self,
        name: &str,
        input: Value,
        filter: Filter<'a>,
        residual: Option<Value>,
    ) -> Result<Value> {
        const OPERATION: &str = "convolution";
        let [h, w, c] = self.size(input);
        let [inputs, outputs] = filter.channels;
        if c != inputs {
            return Err(Error::shape(OPERATION, "input", &[h, w, c], format_args!("[H, W, {inputs}]")));
        }
        let geometry = filter.window.over([h, w])?;
        for (argument, channels) in [("input channels", inputs), ("output channels", outputs)] {
            if filter.groups == 0 || channels == 0 || channels % filter.groups != 0 {
                let expected = format_args!("a multiple of {} groups, not 0", filter.groups);
                return Err(Error::invalid(OPERATION, argument, channels, expected));
            }
        }
        let convolution = Convolution { filter, geometry };
        let [rows, columns] = geometry.output;
        let size = [rows, columns, outputs];
        element_count(OPERATION, &size)?;
        let [kernel_h, kernel_w] = geometry.kernel;
        element_count(OPERATION, &[kernel_h, kernel_w, inputs / convolution.filter.groups, outputs])?;
        if let Some(residual) = residual
            && (self.size(residual) != size || !convolution.is_pointwise())
        {
            let expected = format_args!("{size:?} and a pointwise convolution");
            return Err(Error::shape(OPERATION, "residual", &self.size(residual), expected));
        }
        Ok(self.push(name, Operator::Convolution(Box::new(convolution)), input, residual, size))
    }

    /// Mean over the map.
    pub fn global_average(&mut self, name: &str, input: Value) -> Value {
        let channels = self.size(input)[2];
        self.push(name, Operator::GlobalAverage, input, None, [1, 1, channels])
    }

    /// Greatest value of the map.
    pub fn global_max(&mut self, name: &str, input: Value) -> Value {
        let channels = self.size(input)[2];
        self.push(name, Operator::GlobalMax, input, None, [1, 1, channels])
    }

    /// Every element cut to a range; part of the convolution that gives them, if nothing else reads its output.
    pub fn clamp(&mut self, name: &str, input: Value, clamp: Clamp<f32>) -> Value {
        self.push(name, Operator::Clamp(clamp), input, None, self.size(input))
    }

    /// Softmax over the channels of each pixel.
    pub fn softmax(&mut self, name: &str, input: Value) -> Value {
        self.push(name, Operator::Softmax, input, None, self.size(input))
    }

    /// All elements as the channels of one pixel.
    pub fn flatten(&mut self, name: &str, input: Value) -> Value {
        match self.size(input) {
            [1, 1, _] => input,
            [h, w, c] => {
                let elements = h.saturating_mul(w).saturating_mul(c);
                self.push(name, Operator::Flatten, input, None, [1, 1, elements])
            }
        }
    }

    /// Any function of one image `[1, H, W, C]` that gives `[1, H, W, C]` of this size; it may allocate.
    pub fn opaque(
        &mut self,
        name: &str,
        kind: &'static str,
        input: Value,
        output: [usize; 3],
        function: impl Fn(&Tensor<f32>, &Runtime) -> Result<Tensor<f32>> + Send + Sync + 'static,
    ) -> Value {
        self.push(name, Operator::Opaque(kind, Arc::new(function)), input, None, output)
    }

    fn push(
        &mut self,
        name: &str,
        operator: Operator<'a>,
        input: Value,
        residual: Option<Value>,
        size: [usize; 3],
    ) -> Value {
        let output = Value(self.sizes.len());
        self.sizes.push(size);
        self.nodes.push(Node { name: name.into(), operator, input, residual, output });
        output
    }
}
