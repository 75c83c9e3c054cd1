//! A set of labelled images: a folder with one sub-folder per class, or samples made by the caller.
//!
//! Opening lists names only; a file is decoded when a loader wants it, so a damaged one is found there.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use super::Sample;
use crate::{Error, Result};

/// What counts as an image, in lower case.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

const NAME: &str = "image folder";

/// Labelled images and the names of their classes. A clone, and each part of a split, copies no pixels.
///
/// ```
/// use mobilenet::{data::{ImageFolder, Sample}, image::Image};
/// let samples = [0, 0, 1, 1].map(|label| Sample::new(Image::from_rgb(vec![9; 3], 1, 1).unwrap(), label));
/// let images = ImageFolder::from_samples(["cat", "dog"], samples)?;
/// assert_eq!((images.len(), images.class_counts()), (4, vec![2, 2]));
/// assert!(ImageFolder::open("no such folder").is_err());
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    pub(super) classes: Vec<String>,
    pub(super) samples: Vec<Sample>,
}

impl ImageFolder {
    /// Lists a folder that has one sub-folder per class, at any depth within it.
    ///
    /// Classes are sorted by name and numbered in that order; a class's files are sorted by path. Files count if they
    /// end in `.jpg`, `.jpeg` or `.png`, in any case. Names that start with a dot are passed over. A class may be a
    /// link, and so may a file; links to folders within a class are not followed, for they could lead in circles.
    ///
    /// # Errors
    ///
    /// If the folder or one below cannot be read, has no sub-folder, or a sub-folder has no image; all such classes are
    /// named.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut classes: Vec<(String, PathBuf)> = visible(path)?
            .into_iter()
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
            .filter(|(_, path)| path.is_dir())
            .collect();
        classes.sort();
        if classes.is_empty() {
            let reason = format_args!("{}: no sub-folder, expected one for each class", path.display());
            return Err(Error::format(NAME, reason));
        }
        let mut samples = Vec::new();
        for (label, (_, path)) in classes.iter().enumerate() {
            samples.extend(files(path)?.into_iter().map(|path| Sample::new(path, label)));
        }
        let images = Self { classes: classes.into_iter().map(|(name, _)| name).collect(), samples };
        let empty = images.empty_classes();
        if !empty.is_empty() {
            let reason = format_args!("{}: no JPEG or PNG file in class {}", path.display(), empty.join(", "));
            return Err(Error::format(NAME, reason));
        }
        Ok(images)
    }

    /// A set of the caller's own: names of classes, and samples labelled with indices into them.
    ///
    /// # Errors
    ///
    /// If there is no class, a label is not below the number of classes, or a class has no sample; all such classes are
    /// named.
    pub fn from_samples<C: Into<String>>(
        classes: impl IntoIterator<Item = C>,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<Self> {
        let classes: Vec<String> = classes.into_iter().map(Into::into).collect();
        let images = Self { classes, samples: samples.into_iter().collect() };
        let count = images.classes.len();
        if count == 0 {
            return Err(Error::invalid(NAME, "number of classes", 0, "at least 1"));
        }
        if let Some((index, sample)) = images.samples.iter().enumerate().find(|(_, sample)| sample.label() >= count) {
            let found = format_args!("{} (sample {index})", sample.label());
            return Err(Error::invalid(NAME, "label", found, format_args!("below {count}, the number of classes")));
        }
        let empty = images.empty_classes();
        if !empty.is_empty() {
            return Err(Error::invalid(NAME, "class without samples", empty.join(", "), "at least one in each class"));
        }
        Ok(images)
    }

    /// Names of the classes; a label is an index into them.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The images with their labels, class by class if they come from a folder.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Number of images of each class.
    #[must_use]
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for sample in &self.samples {
            counts[sample.label()] += 1;
        }
        counts
    }

    fn empty_classes(&self) -> Vec<&str> {
        let counts = self.class_counts();
        self.classes.iter().zip(counts).filter(|(_, count)| *count == 0).map(|(name, _)| name.as_str()).collect()
    }
}

/// Entries of a folder whose names do not start with a dot.
fn visible(folder: &Path) -> Result<Vec<DirEntry>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = entries.map_err(|error| Error::io(folder, error))?;
    entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    Ok(entries)
}

/// Image files at any depth below a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in visible(&folder)? {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if entry.file_type().map_err(|error| Error::io(&path, error))?.is_dir() {
                folders.push(path);
            } else if EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
                // A link whose file is gone stays in the list, for the loader to report; a pipe would block it.
                && fs::metadata(&path).map_or(true, |data| data.is_file())
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
