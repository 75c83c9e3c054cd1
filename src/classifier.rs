//! From a photo to ranked labels: a network with its preprocessing and class names.
//!
//! The three belong together, so they are checked against each other once, when they are joined.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{CompileOptions, Engine};
use crate::image::Image;
use crate::layers::Layer;
use crate::preprocess::Preprocess;
use crate::{Error, Result, Runtime, Shape, Tensor};

/// A compiled network with its preprocessing and class names. `Send` and `Sync`: threads may share one, each call takes
/// an engine of its own, and all of them share the packed weights.
///
/// ```
/// use mobilenet::classifier::Classifier;
/// use mobilenet::preprocess::Preprocess;
/// use mobilenet::{Architecture, MobileNetV2, WeightSource, image::Image};
///
/// let net = MobileNetV2::<f32>::builder().alpha(0.35).classes(2).build()?;
/// let preprocess = Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(64);
/// let classifier = Classifier::new(net, preprocess, ["cat", "dog"])?;
/// let photo = Image::from_rgb(vec![90; 80 * 70 * 3], 80, 70)?;
/// let predictions = classifier.classify(&photo)?;
/// for hit in predictions.top(2) {
///     println!("{:5.1}%  {}", 100.0 * hit.probability, hit.label);
/// }
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Classifier {
    model: Arc<dyn Layer<f32>>,
    preprocess: Preprocess,
    labels: Vec<Arc<str>>,
    runtime: Runtime,
    engines: Arc<Mutex<Vec<Engines>>>,
}

/// Input shapes that stay compiled: each has packed weights of its own.
const MOST_SHAPES: usize = 4;

/// Engines for one input shape.
#[derive(Debug)]
struct Engines {
    /// Never runs: the others are its clones.
    prototype: Engine,
    idle: Vec<Engine>,
}

impl Classifier {
    /// Joins a network that gives logits `[N, 1, 1, classes]` with the preprocessing of its weights and one label per
    /// class, in the order of its outputs.
    ///
    /// # Errors
    ///
    /// If a setting of the preprocessing is out of range, the network does not take its output, gives anything but
    /// logits, or there is not one label per class.
    pub fn new<L: AsRef<str>>(
        model: impl Layer<f32> + 'static,
        preprocess: Preprocess,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self> {
        preprocess.check()?;
        let labels: Vec<Arc<str>> = labels.into_iter().map(|label| Arc::from(label.as_ref())).collect();
        let output = model.output_shape(preprocess.output_shape())?;
        let [1, 1, 1, classes] = output else {
            return Err(Error::shape("classifier", "output of the network", &output, "logits [1, 1, 1, classes]"));
        };
        if classes == 0 || labels.len() != classes {
            let expected = format_args!("[{classes}], one for each class of the network");
            return Err(Error::shape("classifier", "labels", &[labels.len()], expected));
        }
        let engines = Arc::default();
        let classifier = Self { model: Arc::new(model), preprocess, labels, runtime: Runtime::new(), engines };
        let engine = classifier.engine(classifier.preprocess.output_shape())?;
        classifier.give_back(engine);
        Ok(classifier)
    }

    /// The same at another SIMD level or with more threads; the network is compiled again when it is next used.
    #[must_use]
    pub fn runtime(self, runtime: Runtime) -> Self {
        Self { runtime, engines: Arc::default(), ..self }
    }

    /// An engine that no other thread uses.
    fn engine(&self, shape: Shape) -> Result<Engine> {
        if let Some(engines) = self.lock().iter_mut().find(|engines| engines.prototype.input_shape() == shape) {
            return Ok(engines.idle.pop().unwrap_or_else(|| engines.prototype.clone()));
        }
        let prototype = self.model.compile(shape, &CompileOptions::new().runtime(self.runtime.clone()))?;
        let engine = prototype.clone();
        let mut all = self.lock();
        if all.len() >= MOST_SHAPES {
            // The first is the preprocessing's, the last the most recent.
            all.remove(1);
        }
        all.push(Engines { prototype, idle: Vec::new() });
        Ok(engine)
    }

    fn give_back(&self, engine: Engine) {
        if let Some(engines) = self.lock().iter_mut().find(|e| e.prototype.input_shape() == engine.input_shape()) {
            engines.idle.push(engine);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Engines>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How photos become inputs.
    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Ranks the labels for a photo.
    ///
    /// # Errors
    ///
    /// If the network's logits are not finite: its weights are damaged.
    pub fn classify(&self, image: &Image) -> Result<Predictions> {
        self.classify_input(&self.preprocess.apply(image)?)
    }

    /// Ranks the labels for red, green and blue bytes, row by row from the top without gaps.
    ///
    /// # Errors
    ///
    /// As [`Classifier::classify`]; and if a side is 0 or the length is not `3 * width * height`.
    pub fn classify_rgb(&self, pixels: &[u8], width: u32, height: u32) -> Result<Predictions> {
        self.classify_input(&self.preprocess.apply_rgb(pixels, width, height)?)
    }

    /// Ranks the labels for an input that is already preprocessed, `[1, H, W, 3]`; any size the network takes, which is
    /// compiled for each when it first comes.
    ///
    /// # Errors
    ///
    /// If it is not one image, the network does not take it, or the logits are not finite.
    pub fn classify_input(&self, input: &Tensor<f32>) -> Result<Predictions> {
        let shape = input.shape();
        if shape[0] != 1 {
            return Err(Error::shape("classify", "input", &shape, "[1, H, W, 3]"));
        }
        let mut engine = self.engine(shape)?;
        if engine.output_len() != self.labels.len() {
            let expected = format_args!("[1, 1, 1, {}]", self.labels.len());
            return Err(Error::shape("classify", "output of the network", &engine.output_shape(), expected));
        }
        let mut logits = vec![0.0; self.labels.len()];
        let outcome = engine.run(input.view(), &mut logits);
        self.give_back(engine);
        outcome?;
        Predictions::new(&logits, &self.labels)
    }
}

/// Every class with its probability, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    ranked: Vec<Prediction>,
}

/// One class of [`Predictions`].
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Its place in the network's output.
    pub index: usize,
    /// Its name.
    pub label: Arc<str>,
    /// From 0 to 1; the classes' sum is 1.
    pub probability: f32,
}

impl Predictions {
    /// Softmax, summed in double precision; equal probabilities stay in class order.
    #[expect(clippy::cast_possible_truncation, reason = "probabilities are rounded to f32")]
    fn new(logits: &[f32], labels: &[Arc<str>]) -> Result<Self> {
        if let Some(class) = logits.iter().position(|logit| !logit.is_finite()) {
            let found = format_args!("{} for class {class}", logits[class]);
            return Err(Error::invalid("classify", "logit", found, "a finite number (are the weights damaged?)"));
        }
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let exponentials: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let mut ranked: Vec<Prediction> = exponentials
            .iter()
            .zip(labels)
            .enumerate()
            .map(|(index, (value, label))| Prediction {
                index,
                label: label.clone(),
                probability: (value / sum) as f32,
            })
            .collect();
        ranked.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        Ok(Self { ranked })
    }

    /// The `k` best, best first; all of them if there are fewer.
    #[must_use]
    pub fn top(&self, k: usize) -> &[Prediction] {
        &self.ranked[..k.min(self.ranked.len())]
    }

    /// The best one.
    #[must_use]
    pub fn best(&self) -> &Prediction {
        // A classifier has at least one class.
        &self.ranked[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|index| Arc::from(index.to_string())).collect()
    }

    #[test]
    fn probabilities_are_ranked_and_sum_to_one() {
        let predictions = Predictions::new(&[1.0, 1000.0, 999.0, 1.0], &labels(4)).unwrap();
        let order: Vec<usize> = predictions.top(9).iter().map(|hit| hit.index).collect();
        assert_eq!(order, [1, 2, 0, 3]);
        let sum: f32 = predictions.top(4).iter().map(|hit| hit.probability).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!((predictions.best().probability - 0.731_058_6).abs() < 1e-6);
        assert!(predictions.top(0).is_empty());
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(Predictions::new(&[0.0, bad], &labels(2)), Err(Error::Invalid { .. })));
        }
    }
}
