//! What a network is made of, as a table: one row per layer that has no layers inside.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::{Layer, dotted};
use crate::{Element, Result, Shape};

/// One layer of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Dotted name, as its parameters have it in front.
    pub name: String,
    /// The type's name.
    pub kind: &'static str,
    /// Its [kernel](Layer::kernel), empty if it is not one.
    pub kernel: String,
    /// `[N, H, W, C]` of its output.
    pub output: Shape,
    /// Number of trained values.
    pub parameters: usize,
    /// Number of running means and variances.
    pub running_statistics: usize,
    /// Multiply-adds of convolutions and linear layers.
    pub multiply_adds: u64,
}

/// Layers, output shapes, parameters and multiply-adds of a network at one input shape; prints as an aligned table.
///
/// ```
/// use mobilenet::layers::{ConvBnRelu, Sequential, Summary};
/// let net = Sequential::new().push(ConvBnRelu::<f32>::builder(3, 8).kernel_size(3).build()?);
/// let summary = Summary::of(&net, [1, 4, 4, 3])?;
/// assert_eq!(summary.parameters(), 3 * 3 * 3 * 8 + 2 * 8);
/// assert_eq!(summary.multiply_adds(), 4 * 4 * 3 * 3 * 3 * 8);
/// println!("{summary}");
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The layers in order.
    pub rows: Vec<SummaryRow>,
}

impl Summary {
    /// Walks a layer down to its leaves.
    ///
    /// # Errors
    ///
    /// If the layer does not take an input of this shape.
    pub fn of<T: Element>(layer: &dyn Layer<T>, input: Shape) -> Result<Self> {
        let mut rows = Vec::new();
        walk(layer, "", input, &mut rows)?;
        Ok(Self { rows })
    }

    /// Number of trained values.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// Number of running means and variances.
    #[must_use]
    pub fn running_statistics(&self) -> usize {
        self.rows.iter().map(|row| row.running_statistics).sum()
    }

    /// Multiply-adds of convolutions and linear layers.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().fold(0, |total, row| total.saturating_add(row.multiply_adds))
    }
}

fn walk<T: Element>(layer: &dyn Layer<T>, name: &str, input: Shape, rows: &mut Vec<SummaryRow>) -> Result<Shape> {
    let children = layer.children();
    if !children.is_empty() {
        return children
            .into_iter()
            .try_fold(input, |shape, (child, layer)| walk(layer, &dotted(name, &child), shape, rows));
    }
    let output = layer.output_shape(input)?;
    let mut running_statistics = 0;
    layer.visit("", &mut |_, parameter| {
        running_statistics += if parameter.role().is_trained() { 0 } else { parameter.len() };
    });
    rows.push(SummaryRow {
        name: name.into(),
        kind: layer.kind(),
        kernel: layer.kernel().unwrap_or_default(),
        output,
        parameters: layer.parameter_count(),
        running_statistics,
        multiply_adds: layer.multiply_adds(input)?,
    });
    Ok(output)
}

/// `1234567` as `1,234,567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["layer", "kind", "kernel", "output", "parameters", "multiply-adds"].map(String::from);
        let body = self.rows.iter().map(|row| {
            [
                row.name.clone(),
                row.kind.into(),
                row.kernel.clone(),
                format!("{:?}", row.output),
                grouped(row.parameters as u64),
                grouped(row.multiply_adds),
            ]
        });
        let total = [
            "total".into(),
            String::new(),
            String::new(),
            String::new(),
            grouped(self.parameters() as u64),
            grouped(self.multiply_adds()),
        ];
        let lines: Vec<[String; 6]> = core::iter::once(head).chain(body).chain([total]).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: [usize; 6] = core::array::from_fn(width);
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
        for (index, [name, kind, kernel, output, parameters, multiply_adds]) in lines.iter().enumerate() {
            if index == 1 || index == lines.len() - 1 {
                writeln!(f, "{rule}")?;
            }
            let [a, b, c, d, e, g] = widths;
            writeln!(f, "{name:a$}  {kind:b$}  {kernel:c$}  {output:d$}  {parameters:>e$}  {multiply_adds:>g$}")?;
        }
        write!(f, "and {} running statistics, which are not trained", grouped(self.running_statistics() as u64))
    }
}
