//! The tensor: four axes, channels innermost, over an ndarray array.
//!
//! One layout (`[N, H, W, C]`, row-major, contiguous) means that a SIMD register always holds neighbouring
//! channels of one pixel, and that a decoded image is already in order.

use alloc::vec;
use alloc::vec::Vec;

use ndarray::{Array, Array1, Array4, ArrayView2, ArrayView4, ArrayViewMut4, Axis, Dimension};

use crate::shape::{Shape, element_count};
use crate::{Element, Error, Result, aligned};

/// A batch of images or feature maps, `[N, H, W, C]`, contiguous.
///
/// Owns an [`ndarray::Array4`] in standard layout; conversions from and into it do not copy.
///
/// ```
/// use mobilenet::Tensor;
/// let tensor = Tensor::from_shape_vec([1, 2, 2, 1], vec![1.0_f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(tensor.view()[[0, 1, 0, 0]], 3.0);
/// let array: mobilenet::ndarray::Array4<f32> = tensor.into_array();
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    array: Array4<T>,
}

impl<T: Element> Tensor<T> {
    /// A tensor of zeros.
    ///
    /// # Errors
    ///
    /// If the shape does not fit memory.
    pub fn zeros(shape: Shape) -> Result<Self> {
        Self::in_memory(shape, vec![T::zero(); Self::memory_len("tensor", shape)?])
    }

    /// Elements that [`Tensor::in_memory`] needs for a shape.
    ///
    /// # Errors
    ///
    /// If the shape does not fit memory.
    pub(crate) fn memory_len(operation: &'static str, shape: Shape) -> Result<usize> {
        Ok(element_count(operation, &shape)? + aligned::room::<T>())
    }

    /// A tensor of what this memory holds from the start of a cache line on.
    ///
    /// # Errors
    ///
    /// If the memory is shorter than [`Tensor::memory_len`].
    pub(crate) fn in_memory(shape: Shape, memory: Vec<T>) -> Result<Self> {
        let (found, expected) = (memory.len(), Self::memory_len("tensor", shape)?);
        if found < expected {
            return Err(Error::shape("tensor", "memory", &[found], format_args!("at least [{expected}]")));
        }
        let start = aligned::start(&memory);
        let count = expected - aligned::room::<T>();
        let mut values = Array1::from_vec(memory);
        values.slice_axis_inplace(Axis(0), (start..start + count).into());
        Self::shaped(values, shape)
    }

    /// All memory, with elements before and after the tensor's.
    pub(crate) fn into_memory(self) -> Vec<T> {
        self.array.into_raw_vec_and_offset().0
    }

    /// The same elements, in another shape.
    ///
    /// # Errors
    ///
    /// If it has another number of elements.
    pub(crate) fn reshaped(self, shape: Shape) -> Result<Self> {
        Self::shaped(self.array, shape)
    }

    fn shaped<D: Dimension>(array: Array<T, D>, shape: Shape) -> Result<Self> {
        let len = array.len();
        let array = array.into_shape_with_order(shape);
        array
            .map(|array| Self { array })
            .map_err(|_| Error::shape("tensor", "shape", &shape, format_args!("{len} elements")))
    }

    /// A tensor whose element at `[n, h, w, c]` is `value([n, h, w, c])`.
    ///
    /// # Errors
    ///
    /// If the shape does not fit memory.
    pub fn from_fn(shape: Shape, mut value: impl FnMut(Shape) -> T) -> Result<Self> {
        let mut tensor = Self::zeros(shape)?;
        for ((n, h, w, c), element) in tensor.array.indexed_iter_mut() {
            *element = value([n, h, w, c]);
        }
        Ok(tensor)
    }

    /// Takes a vector in `[N, H, W, C]` order.
    ///
    /// # Errors
    ///
    /// If its length is not the product of `shape`.
    pub fn from_shape_vec(shape: Shape, values: Vec<T>) -> Result<Self> {
        let found = values.len();
        if element_count("tensor", &shape)? != found {
            return Err(Error::shape("tensor", "values", &[found], format_args!("the elements of {shape:?}")));
        }
        Self::shaped(Array1::from_vec(values), shape)
    }

    /// Copies a slice in `[N, H, W, C]` order.
    ///
    /// # Errors
    ///
    /// If its length is not the product of `shape`.
    pub fn from_slice(shape: Shape, values: &[T]) -> Result<Self> {
        Self::from_shape_vec(shape, values.to_vec())
    }

    /// Copies a slice in PyTorch's `[N, C, H, W]` order; `shape` is in that order too.
    ///
    /// # Errors
    ///
    /// If its length is not the product of `shape`.
    pub fn from_nchw(shape: [usize; 4], values: &[T]) -> Result<Self> {
        let found = values.len();
        let expected = || Error::shape("tensor", "values", &[found], format_args!("the elements of {shape:?}"));
        if element_count("tensor", &shape)? != found {
            return Err(expected());
        }
        let view = ArrayView4::from_shape(shape, values).map_err(|_| expected())?;
        Ok(Self::from(view.permuted_axes([0, 2, 3, 1])))
    }

    /// Copies into PyTorch's `[N, C, H, W]` order.
    #[must_use]
    pub fn to_nchw(&self) -> Array4<T> {
        self.array.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned()
    }

    /// Joins tensors along the batch axis.
    ///
    /// # Errors
    ///
    /// If there is none, or their maps or channels differ.
    pub fn stack(tensors: &[Self]) -> Result<Self> {
        let Some(first) = tensors.first() else {
            return Err(Error::shape("stack", "tensors", &[0], "at least one tensor"));
        };
        let [_, h, w, c] = first.shape();
        for tensor in tensors {
            if tensor.shape()[1..] != first.shape()[1..] {
                return Err(Error::shape("stack", "tensor", &tensor.shape(), format_args!("[N, {h}, {w}, {c}]")));
            }
        }
        let images = tensors.iter().map(|tensor| tensor.shape()[0]).sum();
        let mut values = Vec::with_capacity(element_count("stack", &[images, h, w, c])?);
        for tensor in tensors {
            values.extend_from_slice(tensor.as_slice());
        }
        Self::from_shape_vec([images, h, w, c], values)
    }

    /// Image `index` as a batch of one.
    ///
    /// # Errors
    ///
    /// If the batch is not that long.
    pub fn image(&self, index: usize) -> Result<Self> {
        let [n, h, w, c] = self.shape();
        if index >= n {
            return Err(Error::invalid("tensor", "image index", index, format_args!("below {n}")));
        }
        Self::from_slice([1, h, w, c], &self.as_slice()[index * h * w * c..][..h * w * c])
    }

    /// `[N, H, W, C]`.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.array.dim().into()
    }

    /// The elements in `[N, H, W, C]` order.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "every constructor makes a standard layout")]
    pub fn as_slice(&self) -> &[T] {
        self.array.as_slice().expect("standard layout")
    }

    /// The elements in `[N, H, W, C]` order, to write to.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "every constructor makes a standard layout")]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.array.as_slice_mut().expect("standard layout")
    }

    /// A borrowed ndarray view.
    #[must_use]
    pub fn view(&self) -> ArrayView4<'_, T> {
        self.array.view()
    }

    /// A borrowed ndarray view, to write to.
    #[must_use]
    pub fn view_mut(&mut self) -> ArrayViewMut4<'_, T> {
        self.array.view_mut()
    }

    /// Each image as one row: `[N, H * W * C]`. Logits `[N, 1, 1, classes]` become `[N, classes]`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the shape has the same number of elements")]
    pub fn rows(&self) -> ArrayView2<'_, T> {
        let [n, h, w, c] = self.shape();
        ArrayView2::from_shape([n, h * w * c], self.as_slice()).expect("same number of elements")
    }

    /// The array itself. Its first element need not be its vector's: see `into_raw_vec_and_offset`.
    #[must_use]
    pub fn into_array(self) -> Array4<T> {
        self.array
    }

    /// The elements in `[N, H, W, C]` order, moved to the vector's start if they are not there.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        let len = self.array.len();
        let (mut values, start) = self.array.into_raw_vec_and_offset();
        let start = start.unwrap_or(0);
        values.truncate(start + len);
        values.drain(..start);
        values
    }

    /// Adds a batch axis to one image or map `[H, W, C]`.
    #[must_use]
    pub fn from_image(image: ndarray::Array3<T>) -> Self {
        Self::from(image.insert_axis(Axis(0)))
    }
}

impl<T: Element> From<Array4<T>> for Tensor<T> {
    /// Takes the array with its whole allocation, even if it is a slice of it; copies only if it is not in standard
    /// layout.
    fn from(array: Array4<T>) -> Self {
        if array.is_standard_layout() { Self { array } } else { Self::from(array.view()) }
    }
}

impl<T: Element> From<ArrayView4<'_, T>> for Tensor<T> {
    /// Copies the view into standard layout.
    fn from(view: ArrayView4<'_, T>) -> Self {
        Self { array: Array4::from_shape_vec(view.dim(), view.iter().copied().collect()).expect("one per index") }
    }
}

impl<T> From<Tensor<T>> for Array4<T> {
    fn from(tensor: Tensor<T>) -> Self {
        tensor.array
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_round_trip_keeps_the_allocation() {
        let array = Array4::<f32>::ones([2, 3, 4, 5]);
        let pointer = array.as_ptr();
        let array = Tensor::from(array).into_array();
        assert_eq!(array.as_ptr(), pointer);
    }

    #[test]
    fn sliced_and_permuted_arrays_become_standard() {
        let array = Array4::from_shape_fn([3, 3, 4, 5], |(n, h, w, c)| (n * 60 + h * 20 + w * 5 + c) as f64);
        for part in [0..1, 1..2, 2..3] {
            let mut image = array.clone();
            image.slice_axis_inplace(Axis(0), part.into());
            assert_eq!(Tensor::from(image.clone()).into_vec(), image.iter().copied().collect::<Vec<_>>());
        }
        let permuted = array.permuted_axes([0, 3, 1, 2]);
        assert_eq!(Tensor::from(permuted.clone()).into_vec(), permuted.iter().copied().collect::<Vec<_>>());
    }

    #[test]
    fn memory_starts_on_a_line_and_leaves_without_what_is_around() {
        let memory: Vec<f32> = (0..50_u8).map(f32::from).collect();
        for tensor in [Tensor::zeros([1, 2, 2, 5]).unwrap(), Tensor::in_memory([1, 2, 2, 5], memory).unwrap()] {
            assert_eq!(aligned::start(tensor.as_slice()), 0);
            let (copy, values) = (tensor.clone(), tensor.as_slice().to_vec());
            assert_eq!(tensor.into_vec(), values);
            assert_eq!(copy.into_array().as_slice(), Some(&*values));
        }
        assert!(matches!(Tensor::in_memory([1, 2, 2, 5], vec![0.0_f32; 20]), Err(Error::Shape { .. })));
        assert!(Tensor::<f32>::zeros([1, 0, 2, 5]).unwrap().into_vec().is_empty());
        let five = Tensor::<f32>::zeros([1, 2, 2, 5]).unwrap();
        assert!(matches!(five.reshaped([1, 2, 2, 4]), Err(Error::Shape { .. })));
    }

    #[test]
    fn nchw_round_trip_is_exact() {
        let values: Vec<f32> = (0..120_u8).map(f32::from).collect();
        let tensor = Tensor::from_nchw([2, 3, 4, 5], &values).unwrap();
        assert_eq!(tensor.shape(), [2, 4, 5, 3]);
        assert_eq!(tensor.to_nchw().as_slice().unwrap(), values);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert!(matches!(Tensor::from_shape_vec([1, 2, 2, 1], alloc::vec![0.0_f32; 3]), Err(Error::Shape { .. })));
        assert!(matches!(Tensor::<f32>::zeros([usize::MAX, 2, 2, 2]), Err(Error::Shape { .. })));
        assert!(matches!(Tensor::<f32>::stack(&[]), Err(Error::Shape { .. })));
        let (a, b) = (Tensor::<f32>::zeros([1, 1, 1, 2]).unwrap(), Tensor::zeros([1, 1, 1, 3]).unwrap());
        assert!(matches!(Tensor::stack(&[a, b]), Err(Error::Shape { .. })));
    }
}
