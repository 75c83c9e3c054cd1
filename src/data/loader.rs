//! Batches of inputs and labels, decoded on background threads ahead of the training step.
//!
//! The unit of work is an image, not a batch, so that an unreadable one costs its place only: batches are filled in
//! order with the images that can be read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use super::random::{Random, derive_seed};
use super::workers::Workers;
use super::{Augmentation, ImageFolder, Sample, Source};
use crate::preprocess::Preprocess;
use crate::shape::element_count;
use crate::{Error, Result, Tensor};

/// Inputs `[N, size, size, 3]` and their `N` labels.
pub type Batch = (Tensor<f32>, Vec<usize>);

const NAME: &str = "loader";

/// Batches that may wait decoded: the workers go on while one is trained on, and a few slow files do not stop it.
const BATCHES_AHEAD: usize = 2;

/// As many as a runtime may have.
const MOST_WORKERS: usize = 1024;

/// What happens to the images that do not fill a batch at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LastBatch {
    /// They make a smaller batch.
    #[default]
    Keep,
    /// They are left out of this epoch: batch statistics of a few images are poor.
    Drop,
}

/// What happens when an image cannot be read or decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnUnreadable {
    /// The next readable image takes its place, and [`Loader::unreadable`] reports it.
    #[default]
    Skip,
    /// The epoch ends with the error.
    Fail,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The image.
    pub sample: Sample,
    /// Why, with its path.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Settings of a [`Loader`]; see there.
#[derive(Clone, Debug)]
#[must_use]
pub struct LoaderBuilder {
    images: ImageFolder,
    preprocess: Preprocess,
    training: Option<(Augmentation, u64)>,
    batch_size: usize,
    last_batch: LastBatch,
    on_unreadable: OnUnreadable,
    workers: usize,
}

impl LoaderBuilder {
    /// For training: shuffled and augmented anew in each epoch, from this seed. Without it the loader is for
    /// evaluation: in order, each image exactly as the preprocessing makes it.
    pub fn training(self, augmentation: Augmentation, seed: u64) -> Self {
        Self { training: Some((augmentation, seed)), ..self }
    }

    /// Images in a batch; 32 unless set.
    pub fn batch_size(self, batch_size: usize) -> Self {
        Self { batch_size, ..self }
    }

    /// What happens to a batch that is not full; it is kept unless set.
    pub fn last_batch(self, last_batch: LastBatch) -> Self {
        Self { last_batch, ..self }
    }

    /// What happens when an image cannot be read; it is skipped and reported unless set.
    pub fn on_unreadable(self, on_unreadable: OnUnreadable) -> Self {
        Self { on_unreadable, ..self }
    }

    /// Decoding threads; one fewer than the machine runs at once, at least 1, unless set. Batches do not depend on it.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// The loader.
    ///
    /// # Errors
    ///
    /// If there is no image, a setting of the preprocessing or the augmentation is out of range, the batch size is 0 or
    /// does not fit memory, incomplete batches are dropped and there is no other, or the workers are not 1 to 1024.
    pub fn build(self) -> Result<Loader> {
        self.preprocess.check()?;
        if let Some((augmentation, _)) = &self.training {
            augmentation.check()?;
        }
        let count = self.images.len();
        if count == 0 {
            return Err(Error::invalid(NAME, "number of images", 0, "at least 1"));
        }
        let [_, h, w, c] = self.preprocess.output_shape();
        if self.batch_size == 0 {
            return Err(Error::invalid(NAME, "batch size", 0, "at least 1"));
        }
        element_count(NAME, &[self.batch_size, h, w, c])?;
        if self.last_batch == LastBatch::Drop && self.batch_size > count {
            let expected = format_args!("at most {count}, the number of images, if incomplete batches are dropped");
            return Err(Error::invalid(NAME, "batch size", self.batch_size, expected));
        }
        if !(1..=MOST_WORKERS).contains(&self.workers) {
            return Err(Error::invalid(NAME, "workers", self.workers, format_args!("1 to {MOST_WORKERS}")));
        }
        Ok(Loader { settings: Arc::new(self), unreadable: Arc::default() })
    }
}

/// Makes batches of a set of images, epoch by epoch. Clones share the images and the report.
///
/// ```
/// use mobilenet::data::{Augmentation, ImageFolder, LastBatch, Loader, Sample};
/// use mobilenet::{image::Image, preprocess::{Filter, Preprocess, Resize}};
/// let samples = (0..10_u8).map(|i| Sample::new(Image::from_rgb(vec![i; 3], 1, 1).unwrap(), 0));
/// let images = ImageFolder::from_samples(["grey"], samples)?;
/// let preprocess = Preprocess::new(Resize::Whole { filter: Filter::Bilinear }, 8);
/// let loader = Loader::builder(images, preprocess)
///     .training(Augmentation::imagenet(), 7)
///     .batch_size(4)
///     .last_batch(LastBatch::Drop)
///     .build()?;
/// let batches = loader.epoch(0).collect::<mobilenet::Result<Vec<_>>>()?;
/// assert_eq!((batches.len(), batches[0].0.shape()), (2, [4, 8, 8, 3]));
/// for skipped in loader.unreadable() {
///     eprintln!("skipped: {skipped}");
/// }
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader {
    settings: Arc<LoaderBuilder>,
    unreadable: Report,
}

/// Unreadable images by their index.
type Report = Arc<Mutex<BTreeMap<usize, Unreadable>>>;

impl Loader {
    /// Batches of these images, with the preprocessing of the network's weights.
    pub fn builder(images: ImageFolder, preprocess: Preprocess) -> LoaderBuilder {
        LoaderBuilder {
            images,
            preprocess,
            training: None,
            batch_size: 32,
            last_batch: LastBatch::default(),
            on_unreadable: OnUnreadable::default(),
            // One is left to the training step.
            workers: available_parallelism().map_or(1, |count| count.get() - 1).clamp(1, MOST_WORKERS),
        }
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &ImageFolder {
        &self.settings.images
    }

    /// Batches of an epoch if every image can be read; otherwise there may be fewer.
    #[must_use]
    pub fn batches(&self) -> usize {
        let (count, size) = (self.settings.images.len(), self.settings.batch_size);
        if self.settings.last_batch == LastBatch::Drop { count / size } else { count.div_ceil(size) }
    }

    /// The images that could not be read so far, in the order of the set, each once.
    #[must_use]
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Starts the workers on epoch `epoch`. They stop when the iterator is dropped.
    ///
    /// An item is an error, and the last one, if the system refuses a thread, decoding panics, no batch could be made
    /// because too few images can be read, or one cannot and [`OnUnreadable::Fail`] is set.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let settings = &self.settings;
        let count = settings.images.len();
        let mut order: Vec<usize> = (0..count).collect();
        if let Some((_, seed)) = settings.training {
            // No sample has this number.
            Random::new(derive_seed(seed, &[epoch, u64::MAX])).shuffle(&mut order);
        }
        let order: Arc<[usize]> = order.into();
        let job = {
            let (settings, order) = (Arc::clone(settings), Arc::clone(&order));
            move |position: usize| settings.input(epoch, order[position])
        };
        let ahead = (BATCHES_AHEAD * settings.batch_size.min(count)).div_ceil(settings.workers);
        let workers = Workers::start(settings.workers, ahead, count, job).map_err(|error| {
            let expected = format_args!("as many as the system grants ({error})");
            Error::invalid(NAME, "workers", settings.workers, expected)
        });
        let unreadable = Arc::clone(&self.unreadable);
        Epoch { settings: Arc::clone(settings), unreadable, order, workers: Some(workers), given: 0 }
    }
}

impl LoaderBuilder {
    /// Sample `index` as the network's input.
    fn input(&self, epoch: u64, index: usize) -> Result<Tensor<f32>> {
        let image = self.images.samples()[index].load()?;
        match &self.training {
            Some((augmentation, seed)) => {
                augmentation.apply(&image, &self.preprocess, derive_seed(*seed, &[epoch, index as u64]))
            }
            None => self.preprocess.apply(&image),
        }
    }
}

/// The batches of one epoch: [`Loader::epoch`].
#[derive(Debug)]
pub struct Epoch {
    settings: Arc<LoaderBuilder>,
    unreadable: Report,
    /// Index of the sample at each place.
    order: Arc<[usize]>,
    /// `None` when there is nothing more to come.
    workers: Option<Result<Workers<Result<Tensor<f32>>>>>,
    /// Batches that were made.
    given: usize,
}

impl Epoch {
    /// The next batch; `None` at the end.
    fn batch(&mut self, workers: &mut Workers<Result<Tensor<f32>>>) -> Result<Option<Batch>> {
        let settings = &self.settings;
        let (samples, [_, h, w, c]) = (settings.images.samples(), settings.preprocess.output_shape());
        let room = settings.batch_size.min(samples.len());
        let (mut values, mut labels) = (Vec::with_capacity(room * h * w * c), Vec::with_capacity(room));
        while labels.len() < settings.batch_size {
            let Some((place, outcome)) = workers.next() else { break };
            let index = self.order[place];
            let sample = &samples[index];
            match outcome {
                Ok(Ok(input)) => {
                    values.extend_from_slice(input.as_slice());
                    labels.push(sample.label());
                }
                Ok(Err(error)) if settings.on_unreadable == OnUnreadable::Skip => {
                    let report = Unreadable { sample: sample.clone(), reason: error.to_string() };
                    self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(index, report);
                }
                Ok(Err(error)) => return Err(error),
                Err(message) => return Err(panicked(sample, index, &message)),
            }
        }
        if !labels.is_empty() && (labels.len() == settings.batch_size || settings.last_batch == LastBatch::Keep) {
            self.given += 1;
            return Tensor::from_shape_vec([labels.len(), h, w, c], values).map(|inputs| Some((inputs, labels)));
        }
        if self.given == 0 {
            let found = format_args!("{} of {}", labels.len(), samples.len());
            return Err(Error::invalid(NAME, "number of readable images", found, "enough for one batch"));
        }
        Ok(None)
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut workers = match self.workers.take()? {
            Ok(workers) => workers,
            Err(error) => return Some(Err(error)),
        };
        let batch = self.batch(&mut workers).transpose();
        if let Some(Ok(_)) = &batch {
            self.workers = Some(Ok(workers));
        }
        batch
    }
}

impl std::iter::FusedIterator for Epoch {}

fn panicked(sample: &Sample, index: usize, message: &str) -> Error {
    match sample.source() {
        Source::File(path) => Error::format(NAME, format_args!("{}: decoding panicked: {message}", path.display())),
        Source::Memory(_) => Error::format(NAME, format_args!("sample {index}: decoding panicked: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Filter, Resize, image::Image};

    #[test]
    fn panic_while_decoding_is_the_epochs_last_item() {
        let samples = (0..4).map(|_| Sample::new(Image::from_rgb(vec![0; 3], 1, 1).unwrap(), 0));
        let images = ImageFolder::from_samples(["grey"], samples).unwrap();
        let preprocess = Preprocess::new(Resize::Whole { filter: Filter::Nearest }, 1);
        let loader = Loader::builder(images, preprocess).batch_size(1).build().unwrap();
        let mut epoch = loader.epoch(0);
        let workers = Workers::start(2, 1, 4, |item| {
            assert!(item != 1, "damaged");
            Tensor::zeros([1, 1, 1, 3])
        });
        epoch.workers = Some(Ok(workers.unwrap()));
        assert!(matches!(epoch.next(), Some(Ok(_))));
        match epoch.next() {
            Some(Err(Error::Format { reason, .. })) => assert_eq!(reason, "sample 1: decoding panicked: damaged"),
            other => panic!("{other:?}"),
        }
        assert!(epoch.next().is_none());
    }
}
