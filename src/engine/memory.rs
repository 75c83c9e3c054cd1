//! Memory of packed weights and of activations.
//!
//! Floats that start on a cache line. Large ones are mapped and offered to the system as huge pages (feature
//! `huge-pages`, Linux): a network's weights are read once per run, and with pages of 4 KiB each of them is a miss of
//! the address cache.

use alloc::vec::Vec;
use core::fmt;

use crate::aligned::Aligned;
use crate::kernels::BLOCK;

/// From this size on, in floats, memory is mapped: half a huge page.
#[cfg(all(feature = "huge-pages", target_os = "linux"))]
const MAPPED: usize = 1 << 18;

/// Zeros at first.
pub(super) struct Memory {
    len: usize,
    store: Store,
}

enum Store {
    Heap(Aligned<f32>),
    /// The map, and the bytes before its first huge page.
    #[cfg(all(feature = "huge-pages", target_os = "linux"))]
    Mapped(memmap2::MmapMut, usize),
}

impl Memory {
    pub(super) fn new(len: usize) -> Self {
        #[cfg(all(feature = "huge-pages", target_os = "linux"))]
        if len >= MAPPED
            && let Some(store) = Store::map(len)
        {
            return Self { len, store };
        }
        Self { len, store: Store::Heap(Aligned::new(len)) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        match &self.store {
            Store::Heap(data) => data,
            #[cfg(all(feature = "huge-pages", target_os = "linux"))]
            Store::Mapped(map, start) => &bytemuck::cast_slice(&map[*start..])[..self.len],
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        match &mut self.store {
            Store::Heap(data) => data,
            #[cfg(all(feature = "huge-pages", target_os = "linux"))]
            Store::Mapped(map, start) => &mut bytemuck::cast_slice_mut(&mut map[*start..])[..self.len],
        }
    }
}

#[cfg(all(feature = "huge-pages", target_os = "linux"))]
impl Store {
    /// `None` if the system refuses; it may also keep small pages without saying so.
    fn map(len: usize) -> Option<Self> {
        const HUGE: usize = 2 << 20;
        // Whole huge pages, and room to start on one. What is not touched costs nothing.
        let bytes = len.checked_mul(size_of::<f32>())?.checked_next_multiple_of(HUGE)?;
        let map = memmap2::MmapMut::map_anon(bytes.checked_add(HUGE)?).ok()?;
        let start = map.as_ptr().align_offset(HUGE).min(HUGE);
        // A hint: without it, everything is as fast as on a system that has no huge pages.
        let _ = map.advise_range(memmap2::Advice::HugePage, start, bytes);
        Some(Self::Mapped(map, start))
    }
}

impl Clone for Memory {
    /// As much memory, with zeros.
    fn clone(&self) -> Self {
        Self::new(self.len)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Floats that some steps use.
pub(super) struct Buffer {
    pub(super) len: usize,
    /// The first and the last step that uses it.
    pub(super) used: [usize; 2],
}

/// Gives every buffer the lowest place that no buffer used at the same time has; the largest first, as they are the
/// hardest to place.
pub(super) fn place(buffers: &[Buffer]) -> (Vec<[usize; 2]>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&buffer| core::cmp::Reverse(buffers[buffer].len));
    let mut placed: Vec<[usize; 2]> = buffers.iter().map(|buffer| [0, buffer.len]).collect();
    let mut taken: Vec<usize> = Vec::new();
    let mut total = 0;
    for buffer in order {
        let Buffer { len, used: [first, last] } = buffers[buffer];
        let len = len.next_multiple_of(BLOCK);
        let mut at_once: Vec<[usize; 2]> = taken
            .iter()
            .filter(|&&other| buffers[other].used[0] <= last && first <= buffers[other].used[1])
            .map(|&other| placed[other])
            .collect();
        at_once.sort_unstable();
        let mut start = 0;
        for [from, len_taken] in at_once {
            if start + len <= from {
                break;
            }
            start = start.max((from + len_taken).next_multiple_of(BLOCK));
        }
        placed[buffer][0] = start;
        total = total.max(start + len);
        taken.push(buffer);
    }
    (placed, total)
}
