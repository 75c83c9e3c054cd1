//! Running statistics of batch normalisations, taken anew.
//!
//! After weights were changed by other means than training (surgery, averaging, loading into another width), the
//! running statistics belong to maps that are no longer there.

use alloc::vec::Vec;

use crate::layers::{Layer, Role, Signal, Tape};
use crate::{Element, Error, Result, Runtime, Tensor};

/// Replaces every running statistic that is not frozen by its mean over these batches; weights stay as they are.
/// Batches should be as large as those of the training, of the same images, prepared as for training.
///
/// # Errors
///
/// If there is no batch, or the network does not take one; then the statistics are as before.
pub fn recalibrate<T: Element>(
    net: &mut dyn Layer<T>,
    batches: impl IntoIterator<Item = Tensor<T>>,
    runtime: &Runtime,
) -> Result<()> {
    keeping_statistics(net, |net| average(net, batches, runtime))
}

/// Runs `work`; should it fail, the running statistics are as before.
pub(super) fn keeping_statistics<T: Element, L: Layer<T> + ?Sized, R>(
    net: &mut L,
    work: impl FnOnce(&mut L) -> Result<R>,
) -> Result<R> {
    let mut before = Vec::new();
    net.visit("", &mut |_, parameter| {
        if parameter.role() == Role::RunningStatistic {
            before.push(parameter.as_slice().to_vec());
        }
    });
    work(net).inspect_err(|_| {
        let mut before = before.into_iter();
        net.visit_mut("", &mut |_, parameter| {
            if parameter.role() == Role::RunningStatistic
                && let Some(before) = before.next()
            {
                parameter.as_mut_slice().copy_from_slice(&before);
            }
        });
    })
}

fn average<T: Element>(
    net: &mut dyn Layer<T>,
    batches: impl IntoIterator<Item = Tensor<T>>,
    runtime: &Runtime,
) -> Result<()> {
    let mut tape = Tape::new(runtime.clone());
    let mut count = 0_u32;
    for batch in batches {
        count += 1;
        tape.start(0);
        // The first batch replaces what was there; each further one moves the mean by its share.
        tape.set_momentum(1.0 / f64::from(count));
        net.forward_train(Signal::new(batch), &mut tape)?;
    }
    if count == 0 {
        return Err(Error::invalid("recalibrate", "batches", 0, "at least 1"));
    }
    Ok(())
}
