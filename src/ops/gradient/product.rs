//! Matrix products of training: SIMD kernels for `f32`, matrixmultiply for `f64`.

use alloc::vec;
use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use crate::kernels::{self, Clamp, PackedWeights, Pixels, PixelsMut, SimdLevel};
use crate::{Element, Runtime};

/// A weight `[K, N]` packed for products with many rows.
pub(super) struct Product<'a, T> {
    level: SimdLevel,
    size: [usize; 2],
    weight: &'a [T],
    bias: Option<&'a [T]>,
    packed: Vec<f32>,
}

impl<'a, T: Element> Product<'a, T> {
    pub(super) fn new(weight: &'a [T], bias: Option<&'a [T]>, size: [usize; 2], runtime: &Runtime) -> Self {
        let ([inputs, outputs], level) = (size, runtime.simd_level());
        let mut packed = Vec::new();
        if let Some(weight) = T::as_f32(weight) {
            packed = vec![0.0; PackedWeights::len(level, inputs, outputs)];
            let weight = Pixels::dense(weight, [1, inputs], outputs);
            let _ = PackedWeights::pack(level, weight, bias.and_then(T::as_f32), &mut packed);
        }
        Self { level, size, weight, bias, packed }
    }

    /// `output[m, n] = bias[n] + sum over k of input[m, k] * weight[k, n]`, for inputs `pitch` elements apart.
    pub(super) fn rows(&self, input: &[T], pitch: usize, output: &mut [T]) {
        let [inputs, outputs] = self.size;
        let count = output.len() / outputs;
        if let (Some(input), Some(output)) = (T::as_f32(input), T::as_f32_mut(output)) {
            let weights = PackedWeights::from_packed(self.level, inputs, outputs, &self.packed);
            let input = Pixels::new(input, [1, count], inputs, pitch);
            let mut output = PixelsMut::dense(output, [1, count], outputs);
            kernels::pointwise(&weights, input, None, Clamp::none(), &mut output);
            return;
        }
        let input = ArrayView2::from_shape((count, inputs).strides((pitch, 1)), input).expect("rows of the pitch");
        let weight = ArrayView2::from_shape((inputs, outputs), self.weight).expect("the weight's size");
        let mut output = ArrayViewMut2::from_shape((count, outputs), output).expect("whole rows");
        general_mat_mul(T::one(), &input, &weight, T::zero(), &mut output);
        if let Some(bias) = self.bias {
            for mut row in output.rows_mut() {
                row.iter_mut().zip(bias).for_each(|(output, bias)| *output += *bias);
            }
        }
    }
}

/// `sums[k, n] += sum over m of input[m, k] * gradient[m, n]`; pixels of the gradient, and rows of the sums, are whole
/// blocks apart.
pub(super) fn outer<T: Element>(
    level: SimdLevel,
    input: (&[T], usize),
    (gradient, outputs): (&[T], usize),
    sums: &mut [T],
) {
    let (input, inputs) = input;
    let (count, pitch) = (input.len() / inputs, outputs.next_multiple_of(kernels::BLOCK));
    let (Some(from), Some(by), Some(to)) = (T::as_f32(input), T::as_f32(gradient), T::as_f32_mut(sums)) else {
        let input = ArrayView2::from_shape((count, inputs), input).expect("whole rows");
        let gradient = ArrayView2::from_shape((count, pitch), gradient).expect("whole rows");
        let mut sums = ArrayViewMut2::from_shape((inputs, pitch), sums).expect("whole rows");
        general_mat_mul(T::one(), &input.t(), &gradient, T::one(), &mut sums);
        return;
    };
    let gradient = Pixels::new(by, [1, count], outputs, pitch);
    kernels::outer(level, Pixels::dense(from, [1, count], inputs), gradient, to);
}

/// The weight `[K, N]` as `[N, K]`, in tiles whose lines stay in the first-level cache.
pub(super) fn transposed<T: Element>(weight: &[T], [inputs, outputs]: [usize; 2]) -> Vec<T> {
    const TILE: usize = 16;
    let mut turned = vec![T::zero(); weight.len()];
    for first in (0..inputs).step_by(TILE) {
        let rows = TILE.min(inputs - first);
        for n in 0..outputs {
            let column = weight[first * outputs + n..].iter().step_by(outputs);
            turned[n * inputs + first..][..rows].iter_mut().zip(column).for_each(|(to, from)| *to = *from);
        }
    }
    turned
}
