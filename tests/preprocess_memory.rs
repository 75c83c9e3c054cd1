//! Memory that preprocessing takes, counted over all allocations of the process.
#![cfg(feature = "image")]

use std::alloc::System;

use mobilenet::image::Image;
use mobilenet::preprocess::{Filter, Preprocess, Resize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Ten times the 224 x 224 tensor of floats that comes out.
const LIMIT: usize = 10 * 224 * 224 * 3 * 4;

/// Only the middle of a strip is read, however long it is.
#[test]
fn strips_cost_no_more_than_photos() {
    for (width, height) in [(1 << 20, 1), (1, 1 << 20), (3, 1 << 18)] {
        let strip = Image::from_rgb(vec![7; 3 * width as usize * height as usize], width, height).unwrap();
        let resize = Resize::ShorterSide { pixels: 256, filter: Filter::Bilinear };
        let preprocess = Preprocess::new(resize, 224);
        let region = Region::new(ALLOCATOR);
        let tensor = preprocess.apply(&strip).unwrap();
        let allocated = region.change().bytes_allocated;
        assert_eq!(tensor.shape(), [1, 224, 224, 3]);
        assert!(allocated <= LIMIT, "{width} x {height}: {allocated} bytes");
    }
}
