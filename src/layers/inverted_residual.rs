//! The block of MobileNetV2.

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::block::BlockOptions;
use super::filter::{MAX_CHANNELS, check_range};
use super::{Activation, ConvBnRelu, Gradient, Initializer, Layer, Signal, Tape, dotted, forward_link};
use crate::engine::{Graph, Value};
use crate::source::BatchNormConvention;
use crate::{Element, Error, Padding, Result, Runtime, Shape, Tensor, ops};

/// Inverted residual with linear bottleneck (Sandler et al. 2018, section 3): pointwise expansion, depthwise
/// convolution, pointwise projection without activation; the input is added when the stride is 1 and the widths
/// match. `[N, H, W, I] -> [N, OH, OW, O]`.
///
/// Parameters: `expand.*` (absent when the block does not widen), `depthwise.*`, `project.*`, each as in
/// [`ConvBnRelu`].
///
/// ```
/// use mobilenet::layers::{InvertedResidual, Layer};
/// let block = InvertedResidual::<f32>::builder(24, 24).expand_ratio(6).kernel_size(5).build()?;
/// assert!(block.has_residual());
/// assert_eq!(block.depthwise().weight().shape(), [5, 5, 144, 1]);
/// assert_eq!(block.output_shape([1, 28, 28, 24])?, [1, 28, 28, 24]);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "MBConv")]
#[doc(alias = "expanded_conv")]
pub struct InvertedResidual<T> {
    expand: Option<ConvBnRelu<T>>,
    depthwise: ConvBnRelu<T>,
    project: ConvBnRelu<T>,
    has_residual: bool,
}

impl<T: Element> InvertedResidual<T> {
    /// Options for a 3x3 block between these channel counts with expansion 6.
    pub fn builder(in_channels: usize, out_channels: usize) -> InvertedResidualBuilder<T> {
        InvertedResidualBuilder {
            in_channels,
            out_channels,
            expand_ratio: 6,
            hidden_channels: None,
            block: BlockOptions::default(),
            element: PhantomData,
        }
    }

    /// Whether the input is added to the output.
    #[must_use]
    pub fn has_residual(&self) -> bool {
        self.has_residual
    }

    /// The expansion, if the block widens.
    #[must_use]
    pub fn expand(&self) -> Option<&ConvBnRelu<T>> {
        self.expand.as_ref()
    }

    /// The depthwise part.
    #[must_use]
    pub fn depthwise(&self) -> &ConvBnRelu<T> {
        &self.depthwise
    }

    /// The projection.
    #[must_use]
    pub fn project(&self) -> &ConvBnRelu<T> {
        &self.project
    }
}

impl<T: Element> Layer<T> for InvertedResidual<T> {
    fn kind(&self) -> &'static str {
        "InvertedResidual"
    }

    fn output_shape(&self, input: Shape) -> Result<Shape> {
        let expanded = self.expand.as_ref().map_or(Ok(input), |expand| expand.output_shape(input))?;
        self.project.output_shape(self.depthwise.output_shape(expanded)?)
    }

    fn forward_with(&self, input: &Tensor<T>, runtime: &Runtime) -> Result<Tensor<T>> {
        let expanded = self.expand.as_ref().map(|expand| expand.forward_with(input, runtime)).transpose()?;
        let filtered = self.depthwise.forward_with(expanded.as_ref().unwrap_or(input), runtime)?;
        self.project.forward_onto(&filtered, self.has_residual.then_some(input), runtime)
    }

    fn forward_train(&mut self, mut input: Signal<T>, tape: &mut Tape<T>) -> Result<Signal<T>> {
        let mut shortcut = None;
        if self.has_residual {
            input = input.settled(tape)?;
            shortcut = Some(input.clone());
        }
        let expanded = match &mut self.expand {
            Some(expand) => forward_link(expand, input, tape)?,
            None => input,
        };
        let filtered = forward_link(&mut self.depthwise, expanded, tape)?;
        let projected = forward_link(&mut self.project, filtered, tape)?;
        let Some(shortcut) = shortcut else { return Ok(projected) };
        let needs_gradient = projected.needs_gradient();
        let mut output = projected.into_tensor(tape)?;
        ops::add_to(&mut output, &shortcut.map, tape.runtime())?;
        if needs_gradient {
            tape.push(shortcut.needs_gradient());
        }
        tape.recycle(shortcut);
        Ok(Signal::output(output, needs_gradient))
    }

    fn backward(&mut self, d_output: Gradient<T>, tape: &mut Tape<T>) -> Result<Option<Gradient<T>>> {
        let (mut d_output, mut shortcut) = (d_output, None);
        if self.has_residual && tape.pop()? {
            let map = d_output.into_tensor(tape)?;
            let mut copy = tape.tensor(map.shape())?;
            copy.as_mut_slice().copy_from_slice(map.as_slice());
            shortcut = Some(copy);
            d_output = Gradient::new(map);
        }
        let Some(d_filtered) = self.project.backward(d_output, tape)? else { return Ok(None) };
        let Some(mut d_input) = self.depthwise.backward(d_filtered, tape)? else { return Ok(None) };
        if let Some(expand) = &mut self.expand {
            let Some(below) = expand.backward(d_input, tape)? else { return Ok(None) };
            d_input = below;
        }
        if let Some(shortcut) = shortcut {
            ops::add_to(&mut d_input.map, &shortcut, tape.runtime())?;
            tape.recycle_tensor(shortcut);
        }
        Ok(Some(d_input))
    }

    fn lower<'a>(&'a self, graph: &mut Graph<'a>, name: &str, input: Value) -> Result<Value> {
        let expanded = match &self.expand {
            Some(expand) => expand.lower(graph, &dotted(name, "expand"), input)?,
            None => input,
        };
        let filtered = self.depthwise.lower(graph, &dotted(name, "depthwise"), expanded)?;
        let residual = self.has_residual.then_some(input);
        self.project.lower_onto(graph, &dotted(name, "project"), filtered, residual)
    }

    fn children(&self) -> Vec<(String, &dyn Layer<T>)> {
        let expand = self.expand.iter().map(|expand| ("expand".into(), expand as _));
        expand.chain([("depthwise".into(), &self.depthwise as _), ("project".into(), &self.project as _)]).collect()
    }

    fn children_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        let expand = self.expand.iter_mut().map(|expand| ("expand".into(), expand as _));
        let rest = [("depthwise".into(), &mut self.depthwise as _), ("project".into(), &mut self.project as _)];
        expand.chain(rest).collect()
    }
}

/// Options of an [`InvertedResidual`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(bound = ""))]
#[must_use]
pub struct InvertedResidualBuilder<T> {
    in_channels: usize,
    out_channels: usize,
    expand_ratio: usize,
    hidden_channels: Option<usize>,
    block: BlockOptions,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

impl<T: Element> InvertedResidualBuilder<T> {
    setters! {
        /// Depthwise channels per input channel, 6 by default; 1 leaves the expansion out.
        #[doc(alias = "expansion_factor")]
        expand_ratio: usize => expand_ratio;
        /// Rows and columns of the depthwise taps, odd, 3 by default.
        kernel_size: usize => block.kernel_size;
        /// Step between outputs, 1 by default.
        stride: usize => block.stride;
        /// Step between depthwise taps, 1 by default.
        #[doc(alias = "rate")]
        dilation: usize => block.dilation;
        /// What follows expansion and depthwise convolution, ReLU6 by default.
        activation: Activation => block.activation;
        /// Constants of the normalisations, PyTorch's by default.
        batch_norm: BatchNormConvention => block.batch_norm;
        /// Initial weights, torchvision's by default.
        initializer: Initializer => block.initializer;
        /// Seed of the initial weights, 0 by default.
        seed: u64 => block.seed;
    }

    /// Depthwise channels as a number, in place of a ratio; as many as input channels leave the expansion out.
    pub fn hidden_channels(mut self, hidden_channels: usize) -> Self {
        self.hidden_channels = Some(hidden_channels);
        self
    }

    /// Zeros around the map, `(kernel_size - 1) / 2 * dilation` on each side by default.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.block.padding = Some(padding);
        self
    }

    /// The block.
    ///
    /// # Errors
    ///
    /// If a size is zero or absurd, the kernel even, or the block has a residual and a padding that changes the
    /// map's size.
    pub fn build(self) -> Result<InvertedResidual<T>> {
        const OPERATION: &str = "inverted_residual";
        let Self { in_channels, out_channels, expand_ratio, hidden_channels, block, .. } = self;
        let window = block.window(OPERATION)?;
        check_range(OPERATION, "input channels", in_channels, MAX_CHANNELS)?;
        check_range(OPERATION, "output channels", out_channels, MAX_CHANNELS)?;
        check_range(OPERATION, "expansion ratio", expand_ratio, MAX_CHANNELS)?;
        let hidden = hidden_channels.unwrap_or(in_channels.saturating_mul(expand_ratio));
        check_range(OPERATION, "hidden channels", hidden, MAX_CHANNELS)?;

        let has_residual = block.stride == 1 && in_channels == out_channels;
        let extent = (block.kernel_size - 1).saturating_mul(block.dilation).saturating_add(1);
        if has_residual && window.over([extent; 2])?.output != [extent; 2] {
            let found = format_args!("{:?}", window.padding);
            return Err(Error::invalid(OPERATION, "padding", found, "one that keeps the map's size, for the residual"));
        }
        let expand = (hidden != in_channels).then(|| block.pointwise(0, in_channels, hidden).build()).transpose()?;
        Ok(InvertedResidual {
            expand,
            depthwise: block.depthwise(1, hidden, hidden).build()?,
            project: block.pointwise(2, hidden, out_channels).activation(Activation::None).build()?,
            has_residual,
        })
    }
}
