//! Exponential moving average of a network's weights: evaluated in their place, it often answers better.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::check_fraction;
use crate::layers::Layer;
use crate::{Element, Error, Result};

const OPERATION: &str = "ema";

/// A moving average of every parameter, running statistics too, as timm's `ModelEma`, TF-slim and torchvision's
/// `ExponentialMovingAverage` have it: `average += (1 - decay) * (value - average)`.
///
/// The first update copies. Frozen parameters are averaged as the rest, and stay what they are.
///
/// ```
/// use mobilenet::layers::{Layer, Linear};
/// use mobilenet::train::Ema;
/// let mut net = Linear::<f32>::builder(4, 2).build()?;
/// let mut ema = Ema::new(0.999).decay_warm_up();
/// ema.update(&net)?; // after each optimizer step
/// ema.swap(&mut net)?; // the network now has the averages: evaluate it
/// ema.swap(&mut net)?; // and its own weights again
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ema<T> {
    decay: f64,
    warm_up: WarmUp,
    updates: u64,
    place: Place,
    averages: BTreeMap<String, Vec<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum WarmUp {
    None,
    TensorFlow,
}

/// Where the averages are.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Place {
    Here,
    InTheNetwork,
}

impl<T: Element> Ema<T> {
    /// An average in which the past has this weight, at least 0 and below 1; 0.9999 in TF-slim's recipes.
    #[must_use]
    pub const fn new(decay: f64) -> Self {
        Self { decay, warm_up: WarmUp::None, updates: 0, place: Place::Here, averages: BTreeMap::new() }
    }

    /// Uses `min(decay, (1 + n) / (10 + n))` at the n-th update after the first, as TensorFlow's
    /// `ExponentialMovingAverage` does given the number of updates: a young average follows quickly.
    #[must_use]
    pub fn decay_warm_up(mut self) -> Self {
        self.warm_up = WarmUp::TensorFlow;
        self
    }

    /// Number of updates so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Names and averages, sorted by name.
    pub fn averages(&self) -> impl Iterator<Item = (&str, &[T])> {
        self.averages.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Goes on from what [`Ema::updates`] and [`Ema::averages`] gave before.
    pub fn restore(&mut self, updates: u64, averages: impl IntoIterator<Item = (String, Vec<T>)>) {
        self.updates = updates;
        self.averages = averages.into_iter().collect();
        self.place = Place::Here;
    }

    /// Takes the network's present weights into the average.
    ///
    /// # Errors
    ///
    /// If the decay is not in `[0, 1)`, the network has the averages (see [`Ema::swap`]) or other parameters than at
    /// the first update; then nothing is changed.
    pub fn update(&mut self, net: &dyn Layer<T>) -> Result<()> {
        self.check(net)?;
        if self.averages.is_empty() {
            net.visit("", &mut |name, parameter| {
                self.averages.insert(name, parameter.as_slice().to_vec());
            });
        } else {
            let weight = T::from_f64(1.0 - self.current_decay());
            net.visit("", &mut |name, parameter| {
                let averages = self.averages.get_mut(&name).map_or(&mut [][..], Vec::as_mut_slice);
                for (average, &value) in averages.iter_mut().zip(parameter.as_slice()) {
                    *average += weight * (value - *average);
                }
            });
        }
        self.updates = self.updates.saturating_add(1);
        Ok(())
    }

    /// Exchanges the network's values, running statistics too, with the averages; a second time restores both.
    ///
    /// # Errors
    ///
    /// If there was no update yet, or the network has other parameters than at the first; then nothing is changed.
    pub fn swap(&mut self, net: &mut dyn Layer<T>) -> Result<()> {
        if self.averages.is_empty() {
            return Err(Error::invalid(OPERATION, "number of updates", 0, "at least 1 before a swap"));
        }
        self.check_fit(net)?;
        net.visit_mut("", &mut |name, parameter| {
            if let Some(averages) = self.averages.get_mut(&name) {
                parameter.as_mut_slice().swap_with_slice(averages);
            }
        });
        self.place = match self.place {
            Place::Here => Place::InTheNetwork,
            Place::InTheNetwork => Place::Here,
        };
        Ok(())
    }

    /// Refuses what [`Ema::update`] does.
    pub(super) fn check(&self, net: &dyn Layer<T>) -> Result<()> {
        check_fraction(OPERATION, "decay", self.decay)?;
        if self.place == Place::InTheNetwork {
            let expected = "its own weights: swap before the update";
            return Err(Error::invalid(OPERATION, "network", "swapped with its average", expected));
        }
        if self.averages.is_empty() { Ok(()) } else { self.check_fit(net) }
    }

    fn current_decay(&self) -> f64 {
        let n = self.updates as f64;
        match self.warm_up {
            WarmUp::None => self.decay,
            WarmUp::TensorFlow => self.decay.min((1.0 + n) / (10.0 + n)),
        }
    }

    /// Refuses a network with other names or lengths than the averages.
    pub(super) fn check_fit(&self, net: &dyn Layer<T>) -> Result<()> {
        let mut result = Ok(());
        let mut seen = 0;
        net.visit("", &mut |name, parameter| {
            seen += 1;
            if result.is_ok() && self.averages.get(&name).map(Vec::len) != Some(parameter.len()) {
                let found = self.averages.get(&name).map_or(0, Vec::len);
                let expected = format_args!("{} for {name}", parameter.len());
                result = Err(Error::invalid(OPERATION, "number of averages", found, expected));
            }
        });
        result?;
        if seen != self.averages.len() {
            let expected = format_args!("{}, as many as are averaged", self.averages.len());
            return Err(Error::invalid(OPERATION, "number of parameters", seen, expected));
        }
        Ok(())
    }
}
