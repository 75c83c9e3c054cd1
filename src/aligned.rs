//! Memory that starts on a cache line.
//!
//! A vector that crosses two lines takes two loads, and glibc's large blocks start 16 bytes beyond a line.
//! Room for a line is added instead, and the first elements are skipped. What it gave is in `docs/kernels.md`.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

/// Bytes of a cache line, which no vector exceeds.
const LINE: usize = 64;

/// Elements to add to memory in which some are to start on a cache line.
pub(crate) const fn room<T>() -> usize {
    LINE / size_of::<T>()
}

/// The first element on a cache line, with [`room`] for it.
pub(crate) fn start<T>(values: &[T]) -> usize {
    values.as_ptr().align_offset(LINE).min(room::<T>())
}

/// Elements from the start of a cache line on.
#[derive(Default)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// As many zeros.
    pub(crate) fn new(len: usize) -> Self {
        let values = vec![T::default(); len + room::<T>()];
        Self { start: start(&values), values, len }
    }

    /// Sets the length; the elements may be anything.
    pub(crate) fn resize(&mut self, len: usize) -> &mut [T] {
        if self.start + len > self.values.len() {
            // Freed first: old and new memory are never held together.
            self.values = Vec::new();
            *self = Self::new(len);
        }
        self.len = len;
        self
    }

    /// Makes it as many zeros.
    pub(crate) fn zeroed(&mut self, len: usize) -> &mut [T] {
        let values = self.resize(len);
        values.fill(T::default());
        values
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

impl<T> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aligned").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_start_on_a_line_whatever_the_size() {
        let mut values = Aligned::<f32>::default();
        for len in [0, 1, 17, 5, 1000, 999, 4096] {
            assert!(values.zeroed(len).iter().all(|value| *value == 0.0));
            assert_eq!(values.len(), len);
            assert!(len == 0 || values.as_ptr().addr() % LINE == 0);
            values.fill(1.0);
        }
        let place = values.as_ptr();
        assert_eq!(values.resize(17).as_ptr(), place);
        assert_eq!(Aligned::<f64>::new(9).as_ptr().addr() % LINE, 0);
    }
}
