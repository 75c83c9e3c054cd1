//! Matrix products of training: SIMD kernels for `f32`, matrixmultiply for `f64`.

use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use crate::aligned::Aligned;
use crate::kernels::{self, Clamp, PackedWeights, Panel, Pixels, PixelsMut, SimdLevel};
use crate::runtime::Lent;
use crate::{Element, Runtime};

/// Elements of a weight that are worth packing on all threads: the copy of 128 KiB takes as long as to wake one.
const LARGE: usize = 32 * 1024;

/// Memory of packed weights.
#[derive(Default)]
struct Packed(Aligned<f32>);

/// A weight `[K, N]` packed for products with many rows.
pub(super) struct Product<'a, T> {
    level: SimdLevel,
    weight: ArrayView2<'a, T>,
    bias: Option<&'a [T]>,
    packed: Lent<'a, Packed>,
}

impl<'a, T: Element> Product<'a, T> {
    /// Of a weight `[K, N]`.
    pub(super) fn new(weight: &'a [T], bias: Option<&'a [T]>, size: [usize; 2], runtime: &'a Runtime) -> Self {
        let pixels = T::as_f32(weight).map(|weight| Pixels::dense(weight, [1, size[0]], size[1]));
        let view = ArrayView2::from_shape(size, weight).expect("the weight's size");
        let bias_f32 = bias.and_then(T::as_f32);
        let pack = pixels.map(|weight| move |panels: &mut [Panel<'_>]| Panel::pack(panels, weight, bias_f32));
        Self::pack(view, bias, runtime, pack)
    }

    /// Of a weight `[N, K]`.
    pub(super) fn transposed(weight: &'a [T], size: [usize; 2], runtime: &'a Runtime) -> Self {
        let pixels = T::as_f32(weight).map(|weight| Pixels::dense(weight, [1, size[0]], size[1]));
        let view = ArrayView2::from_shape(size, weight).expect("the weight's size").reversed_axes();
        let pack = pixels.map(|weight| {
            move |panels: &mut [Panel<'_>]| panels.iter_mut().for_each(|panel| panel.pack_transposed(weight))
        });
        Self::pack(view, None, runtime, pack)
    }

    fn pack(
        weight: ArrayView2<'a, T>,
        bias: Option<&'a [T]>,
        runtime: &'a Runtime,
        pack: Option<impl Fn(&mut [Panel<'_>]) + Sync + Send>,
    ) -> Self {
        let ([inputs, outputs], level) = ([weight.nrows(), weight.ncols()], runtime.simd_level());
        let mut packed = runtime.scratch::<Packed>();
        if let Some(pack) = pack {
            let packed = packed.0.resize(PackedWeights::len(level, inputs, outputs));
            let mut panels: Vec<_> = PackedWeights::panels_mut(level, inputs, outputs, packed).collect();
            if weight.len() < LARGE {
                pack(&mut panels);
            } else {
                let share = panels.len().div_ceil(runtime.thread_count());
                runtime.for_each(panels.chunks_mut(share).collect(), |(): &mut (), panels| pack(panels));
            }
        }
        Self { level, weight, bias, packed }
    }

    /// `output[m, n] = bias[n] + sum over k of input[m, k] * weight[k, n]`, for inputs `pitch` elements apart.
    pub(super) fn rows(&self, input: &[T], pitch: usize, output: &mut [T]) {
        let [inputs, outputs] = [self.weight.nrows(), self.weight.ncols()];
        let count = output.len() / outputs;
        if let (Some(input), Some(output)) = (T::as_f32(input), T::as_f32_mut(output)) {
            let weights = PackedWeights::from_packed(self.level, inputs, outputs, &self.packed.0);
            let input = Pixels::new(input, [1, count], inputs, pitch);
            let mut output = PixelsMut::dense(output, [1, count], outputs);
            kernels::pointwise(&weights, input, None, Clamp::none(), &mut output);
            return;
        }
        let input = ArrayView2::from_shape((count, inputs).strides((pitch, 1)), input).expect("rows of the pitch");
        let mut output = ArrayViewMut2::from_shape((count, outputs), output).expect("whole rows");
        general_mat_mul(T::one(), &input, &self.weight, T::zero(), &mut output);
        if let Some(bias) = self.bias {
            for mut row in output.rows_mut() {
                row.iter_mut().zip(bias).for_each(|(output, bias)| *output += *bias);
            }
        }
    }
}

/// `sums[k, n] += sum over m of input[m, k] * gradient[m, n]`, with `input_pitch` from pixel to pixel of the input;
/// pixels of the gradient, and rows of the sums, are whole blocks apart.
pub(super) fn outer<T: Element>(
    level: SimdLevel,
    (input, input_pitch): (&[T], usize),
    (gradient, outputs): (&[T], usize),
    sums: &mut [T],
) {
    let pitch = outputs.next_multiple_of(kernels::BLOCK);
    let [count, inputs] = [gradient, sums].map(|values| values.len() / pitch);
    let (Some(from), Some(by), Some(to)) = (T::as_f32(input), T::as_f32(gradient), T::as_f32_mut(sums)) else {
        let input =
            ArrayView2::from_shape((count, inputs).strides((input_pitch, 1)), input).expect("rows of the pitch");
        let gradient = ArrayView2::from_shape((count, pitch), gradient).expect("whole rows");
        let mut sums = ArrayViewMut2::from_shape((inputs, pitch), sums).expect("whole rows");
        general_mat_mul(T::one(), &input.t(), &gradient, T::one(), &mut sums);
        return;
    };
    let gradient = Pixels::new(by, [1, count], outputs, pitch);
    kernels::outer(level, Pixels::new(from, [1, count], inputs, input_pitch), gradient, to);
}
