//! Labelled photos for training: folders, splits, augmentation, and batches decoded ahead of the step.
//!
//! An [`ImageFolder`] lists samples, an [`Augmentation`] varies them, a [`Loader`] makes batches of them. Everything
//! that is drawn comes from a seed and from *what* it is drawn for (the class, the epoch, the sample), never from when
//! or on which thread: the same seed gives the same batches, bit for bit, on any machine and with any number of
//! workers.
//!
//! ```
//! use mobilenet::data::{Augmentation, ImageFolder, Loader, Sample};
//! use mobilenet::{Architecture, WeightSource, image::Image, preprocess::Preprocess};
//!
//! // `ImageFolder::open("photos")` reads one sub-folder per class; this set is made in memory.
//! let samples = (0..10_u8).map(|index| {
//!     let label = usize::from(index % 2);
//!     let image = Image::from_rgb(vec![20 + 200 * (index % 2); 40 * 30 * 3], 40, 30)?;
//!     Ok(Sample::new(image, label))
//! });
//! let images = ImageFolder::from_samples(["dark", "bright"], samples.collect::<mobilenet::Result<Vec<_>>>()?)?;
//! let (train, validation) = images.split(0.2, 7)?;
//!
//! let preprocess = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(32);
//! let train = Loader::builder(train, preprocess.clone()).training(Augmentation::light(), 7).batch_size(4).build()?;
//! let validation = Loader::builder(validation, preprocess).build()?;
//! for epoch in 0..2 {
//!     for batch in train.epoch(epoch) {
//!         let (inputs, labels) = batch?;
//!         assert_eq!(inputs.shape(), [labels.len(), 32, 32, 3]);
//!     }
//! }
//! assert_eq!(validation.epoch(0).count(), 1);
//! # Ok::<(), mobilenet::Error>(())
//! ```

mod augment;
mod colour;
mod folder;
mod loader;
mod random;
mod sample;
mod split;
mod workers;

pub use augment::Augmentation;
pub use colour::ColourJitter;
pub use folder::ImageFolder;
pub use loader::{Batch, Epoch, LastBatch, Loader, LoaderBuilder, OnUnreadable, Unreadable};
pub use sample::{Sample, Source};
