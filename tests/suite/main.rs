//! The tests, in one program: each for itself would compile the generic code of layers and gradients again. What counts
//! the allocations of its process has a program of its own.

mod architecture;
mod classify;
mod common;
mod data;
mod downstream;
mod engine;
mod examples_train;
mod golden;
mod golden_files;
mod gradient_kernels;
mod gradients;
mod images;
mod kernels;
mod layers;
mod models;
mod npy;
mod optimizers;
mod preprocess;
mod reference;
mod runtime;
mod train;
mod train_golden;
mod weights;
