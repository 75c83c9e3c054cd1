//! What `train` and `finetune` share: options, a run that can stop and go on, its learning curve, images to learn from.

mod curve;
mod interrupt;
mod options;
mod run;
mod shapes;

pub(crate) use interrupt::Interrupt;
pub(crate) use options::{Options, VALIDATION};
pub(crate) use run::{Run, Task};
