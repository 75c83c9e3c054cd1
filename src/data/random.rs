//! Seeded draws: whatever is drawn has a stream of its own, so neither threads nor order change it.

use rand_distr::{Distribution, StandardUniform};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The seed of one part of whatever has this seed, such as a sample of an epoch.
///
/// Every number passes through the generator before the next one is mixed in, so neighbouring seeds, epochs and
/// samples have unrelated streams, and seed 1 of epoch 0 is not seed 0 of epoch 1.
pub(super) fn derive_seed(seed: u64, parts: &[u64]) -> u64 {
    let next = |state| Pcg64::seed_from_u64(state).next_u64();
    parts.iter().fold(next(seed), |state, part| next(state ^ part))
}

/// One stream of draws.
pub(super) struct Random(Pcg64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        StandardUniform.sample(&mut self.0)
    }

    /// Uniform between two numbers.
    pub(super) fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; 0 if that is empty.
    #[expect(clippy::cast_possible_truncation, reason = "the high half of the product is below `count`")]
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// Fisher and Yates: every order is equally likely.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for left in (2..=items.len()).rev() {
            items.swap(left - 1, self.below(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_every_part_and_its_place() {
        let mut seeds: Vec<u64> =
            (0..8).flat_map(|a| (0..8).map(move |b| (a, b))).map(|(a, b)| derive_seed(a, &[b])).collect();
        seeds.extend([derive_seed(1, &[2, 3]), derive_seed(1, &[3, 2]), derive_seed(2, &[1, 3]), derive_seed(0, &[])]);
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count);
    }

    #[test]
    fn every_order_of_three_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            let mut items = [0, 1, 2];
            Random::new(derive_seed(seed, &[])).shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Six standard deviations of a binomial count of 6000 at 1/6.
        assert!(counts.values().all(|count: &i32| (count - 1000).abs() < 174), "{counts:?}");
    }
}
