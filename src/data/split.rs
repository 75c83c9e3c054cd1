//! Splits of a set into training and validation, class by class.
//!
//! Every class gives its share, so a rare class is neither missing from the validation nor from the training.

use super::ImageFolder;
use super::random::{Random, derive_seed};
use crate::{Error, Result};

const NAME: &str = "image folder";

impl ImageFolder {
    /// Training and validation parts, stratified: `round(fraction * len)` images are for validation, each class gives
    /// its share (the remainders of rounding go to the largest), and at least one image of each class stays for
    /// training. Both parts keep the order of this set.
    ///
    /// # Errors
    ///
    /// If the fraction is not between 0 and 1, or so small that no image would be for validation.
    ///
    /// ```
    /// # use mobilenet::{data::{ImageFolder, Sample}, image::Image};
    /// # let samples = (0..20).map(|i| Sample::new(Image::from_rgb(vec![9; 3], 1, 1).unwrap(), usize::from(i < 5)));
    /// # let images = ImageFolder::from_samples(["cat", "dog"], samples)?;
    /// assert_eq!(images.class_counts(), [15, 5]);
    /// let (train, validation) = images.split(0.2, 7)?;
    /// assert_eq!((train.class_counts(), validation.class_counts()), (vec![12, 4], vec![3, 1]));
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    pub fn split(&self, validation_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        if !(validation_fraction > 0.0 && validation_fraction < 1.0) {
            return Err(Error::invalid(NAME, "validation fraction", validation_fraction, "above 0 and below 1"));
        }
        let groups = self.shuffled_classes(seed);
        let counts = validation_counts(&self.class_counts(), validation_fraction);
        if counts.iter().all(|&count| count == 0) {
            let expected = format_args!("more for {} images in {} classes", self.len(), self.classes.len());
            return Err(Error::invalid(NAME, "validation fraction", validation_fraction, expected));
        }
        let mut is_validation = vec![false; self.len()];
        for (group, count) in groups.iter().zip(counts) {
            for &index in &group[..count] {
                is_validation[index] = true;
            }
        }
        Ok((self.part(|index| !is_validation[index]), self.part(|index| is_validation[index])))
    }

    /// `k` pairs of training and validation parts for cross-validation, stratified: every image is for validation in
    /// exactly one of them, and the shares of a class differ by at most one image.
    ///
    /// # Errors
    ///
    /// If `k` is below 2 or above the number of images of the smallest class.
    ///
    /// ```
    /// # use mobilenet::{data::{ImageFolder, Sample}, image::Image};
    /// # let samples = (0..20).map(|i| Sample::new(Image::from_rgb(vec![9; 3], 1, 1).unwrap(), usize::from(i < 5)));
    /// # let images = ImageFolder::from_samples(["cat", "dog"], samples)?;
    /// for (train, validation) in images.folds(5, 7)? {
    ///     assert_eq!((train.class_counts(), validation.class_counts()), (vec![12, 4], vec![3, 1]));
    /// }
    /// # Ok::<(), mobilenet::Error>(())
    /// ```
    pub fn folds(&self, k: usize, seed: u64) -> Result<Vec<(Self, Self)>> {
        let smallest = self.class_counts().into_iter().min().unwrap_or(0);
        if k < 2 || k > smallest {
            let expected = format_args!("at least 2, at most {smallest}, the size of the smallest class");
            return Err(Error::invalid(NAME, "number of folds", k, expected));
        }
        let mut fold = vec![0; self.len()];
        // Dealt on from class to class, so that the folds' sizes differ by at most one as well.
        for (place, index) in self.shuffled_classes(seed).into_iter().flatten().enumerate() {
            fold[index] = place % k;
        }
        Ok((0..k).map(|one| (self.part(|index| fold[index] != one), self.part(|index| fold[index] == one))).collect())
    }

    fn part(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let samples = self.samples.iter().enumerate().filter(|(index, _)| keeps(*index));
        Self { classes: self.classes.clone(), samples: samples.map(|(_, sample)| sample.clone()).collect() }
    }

    /// Indices of the samples of each class, shuffled.
    fn shuffled_classes(&self, seed: u64) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.classes.len()];
        for (index, sample) in self.samples.iter().enumerate() {
            groups[sample.label()].push(index);
        }
        for (class, group) in groups.iter_mut().enumerate() {
            Random::new(derive_seed(seed, &[class as u64])).shuffle(group);
        }
        groups
    }
}

/// Whole shares by the method of largest remainders; ties go to the earlier class.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "parts of a number of images")]
fn validation_counts(classes: &[usize], fraction: f64) -> Vec<usize> {
    let most = |class: usize| classes[class].saturating_sub(1);
    let exact = |class: usize| classes[class] as f64 * fraction;
    let mut counts: Vec<usize> = (0..classes.len()).map(|class| (exact(class) as usize).min(most(class))).collect();
    let total = (classes.iter().sum::<usize>() as f64 * fraction).round() as usize;
    let mut by_remainder: Vec<usize> = (0..classes.len()).collect();
    by_remainder.sort_by(|&a, &b| exact(b).fract().total_cmp(&exact(a).fract()));
    let mut missing = total.saturating_sub(counts.iter().sum());
    for class in by_remainder {
        if missing > 0 && counts[class] < most(class) {
            counts[class] += 1;
            missing -= 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_counts_sum_to_the_share_of_the_whole() {
        // 100 classes of 3 at a tenth: thirty give one each, where rounding class by class would give none.
        let counts = validation_counts(&[3; 100], 0.1);
        assert_eq!((counts.iter().sum::<usize>(), counts.iter().max()), (30, Some(&1)));
        assert_eq!(validation_counts(&[10, 7, 3], 0.2), [2, 1, 1]);
        // 0.29 * 100 is just below 29 in binary.
        assert_eq!(validation_counts(&[100], 0.29), [29]);
    }

    #[test]
    fn one_image_of_a_class_stays() {
        assert_eq!(validation_counts(&[1, 2, 5, 0], 0.99), [0, 1, 4, 0]);
    }
}
