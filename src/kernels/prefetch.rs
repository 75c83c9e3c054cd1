//! Memory asked for ahead of its use.
//!
//! A processor's own prefetchers follow streams, but stop at the end of a page of 4 KiB; a pass over a map larger than
//! the caches would wait there. Without `std`, which `prefetch-index` needs, and on WebAssembly, nothing is asked for.

use super::BLOCK;

/// Bytes from what a pass over a map reads or writes to what it asks for. Distances of 2 to 12 KiB are alike (Zen 3).
const FAR: usize = 6 * 1024;

/// Bytes of a cache line.
const LINE: usize = BLOCK * size_of::<f32>();

/// Asks for the cache line of `from[at]`, wherever that is.
#[inline(always)]
pub(super) fn prefetch<T>(from: &[T], at: usize) {
    #[cfg(feature = "std")]
    prefetch_index::prefetch_index(from, at);
    #[cfg(not(feature = "std"))]
    let _ = (from, at);
}

/// Asks for the line that a pass over a map reaches [`FAR`] bytes after that of `map[at]`.
#[inline(always)]
pub(super) fn prefetch_far<T>(map: &[T], at: usize) {
    prefetch(map, at + FAR / size_of::<T>());
}

/// As [`prefetch_far`], for all lines of a stretch.
#[inline(always)]
pub(super) fn prefetch_far_of<T>(stretch: &[T]) {
    for at in (0..stretch.len()).step_by(LINE / size_of::<T>()) {
        prefetch_far(stretch, at);
    }
}
