//! Published recipes, each with its source.
//!
//! Learning rates belong to the batch size they were found with: scale both together.

use super::{CrossEntropy, RmsProp, Schedule, Sgd};
use crate::Element;
use crate::layers::Role;

/// Weight decay of TF-slim's and torchvision's first recipes.
const WEIGHT_DECAY: f64 = 4e-5;

/// What TF-slim's argument scopes leave out of weight decay: they regularise the weights of dense convolutions and of
/// the classifier, and of depthwise ones only if `regularize_depthwise` is set (MobileNetV1's paper, section 3.2: "very
/// little or no weight decay on the depthwise filters").
const NOT_DECAYED_BY_SLIM: [Role; 4] = [Role::DepthwiseWeight, Role::Bias, Role::NormScale, Role::NormShift];

impl<T: Element> RmsProp<T> {
    /// MobileNetV1's paper (section 3.2): "`RMSprop` ... similar to Inception V3", which is TensorFlow's form with
    /// decay 0.9, epsilon 1.0 and learning rate 0.045 (Szegedy et al. 2016, section 8); momentum 0.9 as TF-slim's
    /// trainer. Weight decay 4e-5 on dense weights alone.
    pub fn mobilenet_v1() -> Self {
        Self::slim()
    }

    /// MobileNetV2's paper (section 6.1): TensorFlow's `RMSProp` with decay and momentum 0.9, weight decay 4e-5,
    /// learning rate 0.045. The paper names no epsilon: 1.0 is TF-slim's `opt_epsilon`. Weight decay on dense weights
    /// alone (TF-slim's `training_scope`).
    pub fn mobilenet_v2() -> Self {
        Self::slim()
    }

    fn slim() -> Self {
        Self::tensorflow(0.045)
            .decay(0.9)
            .momentum(0.9)
            .epsilon(1.0)
            .weight_decay(WEIGHT_DECAY)
            .without_decay(&NOT_DECAYED_BY_SLIM)
    }
}

impl<T: Element> Sgd<T> {
    /// TF-slim's `mobilenet_v1_train.py`: plain, learning rate 0.045 (1e-4 to fine-tune), weight decay 4e-5 on dense
    /// weights alone.
    pub fn mobilenet_v1() -> Self {
        Self::new(0.045).weight_decay(WEIGHT_DECAY).without_decay(&NOT_DECAYED_BY_SLIM)
    }

    /// torchvision's first weights of MobileNetV2 (`references/classification`): learning rate 0.045, momentum 0.9,
    /// weight decay 4e-5 on everything.
    pub fn torchvision() -> Self {
        Self::new(0.045).momentum(0.9).weight_decay(WEIGHT_DECAY)
    }

    /// torchvision's `IMAGENET1K_V2` weights (pytorch/vision#5560): learning rate 0.5, momentum 0.9, weight decay 2e-5,
    /// none on normalisation.
    pub fn torchvision_v2() -> Self {
        let norm = [Role::NormScale, Role::NormShift];
        Self::new(0.5).momentum(0.9).weight_decay(2e-5).without_decay(&norm)
    }
}

/// A published way to train, as far as its source tells; data augmentation apart.
///
/// ```
/// use mobilenet::train::{Recipe, RmsProp};
/// let recipe = Recipe::mobilenet_v2(1_281_167 / 96);
/// let optimizer: RmsProp<f32> = recipe.optimizer;
/// assert_eq!(recipe.schedule.factor(13_345), 0.98);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recipe<O> {
    /// With its base learning rate.
    pub optimizer: O,
    /// The factor of the learning rate, over optimizer steps.
    pub schedule: Schedule,
    /// With its label smoothing.
    pub loss: CrossEntropy,
    /// Decay of the [`Ema`](super::Ema) of weights, updated each step.
    pub ema_decay: Option<f64>,
    /// Images per step, all machines together where they step together.
    pub batch: usize,
    /// Length of the run, where the source says.
    pub epochs: Option<u64>,
}

impl<T: Element> Recipe<RmsProp<T>> {
    /// [`RmsProp::mobilenet_v1`], learning rate times 0.94 every two epochs as Inception V3's; no label smoothing, for
    /// the paper asks for less regularisation; batch 64 as TF-slim's `mobilenet_v1_train.py`.
    #[must_use]
    pub fn mobilenet_v1(steps_per_epoch: u64) -> Self {
        Self {
            optimizer: RmsProp::mobilenet_v1(),
            schedule: Schedule::step(steps_per_epoch.saturating_mul(2), 0.94),
            loss: CrossEntropy::new(),
            ema_decay: None,
            batch: 64,
            epochs: None,
        }
    }

    /// [`RmsProp::mobilenet_v2`], learning rate times 0.98 every epoch, batch 96 (section 6.1; there on each of 16
    /// asynchronous workers); label smoothing 0.1 and an average of weights with decay 0.9999 as TF-slim's README.
    #[must_use]
    pub fn mobilenet_v2(steps_per_epoch: u64) -> Self {
        Self {
            optimizer: RmsProp::mobilenet_v2(),
            schedule: Schedule::step(steps_per_epoch, 0.98),
            loss: CrossEntropy::new().label_smoothing(0.1),
            ema_decay: Some(0.9999),
            batch: 96,
            epochs: None,
        }
    }
}

impl<T: Element> Recipe<Sgd<T>> {
    /// [`Sgd::mobilenet_v1`], learning rate times 0.94 every 2.5 epochs, batch 64.
    #[must_use]
    pub fn mobilenet_v1_slim(steps_per_epoch: u64) -> Self {
        Self {
            optimizer: Sgd::mobilenet_v1(),
            schedule: Schedule::step(steps_per_epoch.saturating_mul(5) / 2, 0.94),
            loss: CrossEntropy::new(),
            ema_decay: None,
            batch: 64,
            epochs: None,
        }
    }

    /// [`Sgd::torchvision`], learning rate times 0.98 every epoch, 300 epochs, batch 256 (32 on each of 8 devices).
    #[must_use]
    pub fn torchvision(steps_per_epoch: u64) -> Self {
        Self {
            optimizer: Sgd::torchvision(),
            schedule: Schedule::step(steps_per_epoch, 0.98),
            loss: CrossEntropy::new(),
            ema_decay: None,
            batch: 256,
            epochs: Some(300),
        }
    }

    /// [`Sgd::torchvision_v2`], a cosine over 600 epochs of which 5 warm up, label smoothing 0.1, batch 1024 (128 on
    /// each of 8 devices). Its warm-up starts at 0.01 of the learning rate and moves once per epoch; this one at each
    /// step. Its average of weights moves every 32 steps by `2e-5 * 1024 * 32 / 600`; the decay here gives as much in
    /// 32 steps.
    #[must_use]
    pub fn torchvision_v2(steps_per_epoch: u64) -> Self {
        Self {
            optimizer: Sgd::torchvision_v2(),
            schedule: Schedule::cosine(steps_per_epoch.saturating_mul(600)).warm_up(steps_per_epoch.saturating_mul(5)),
            loss: CrossEntropy::new().label_smoothing(0.1),
            ema_decay: Some(1.0 - 2e-5 * 1024.0 / 600.0),
            batch: 1024,
            epochs: Some(600),
        }
    }
}
