//! Memory that one piece of work leaves for the next.
//!
//! Fresh pages cost as much as the arithmetic that fills them; what a training step needs for a moment is therefore
//! kept, by type, and lent to whoever asks next. As many values of a type are kept as were ever in use at once.

use alloc::boxed::Box;
use core::any::Any;
use core::fmt;

/// Values that are not in use.
#[derive(Default)]
pub(crate) struct Scratch {
    #[cfg(feature = "std")]
    spare: std::sync::Mutex<alloc::vec::Vec<Box<dyn Any + Send>>>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    /// Lends a value that other work may have left anything in.
    pub(crate) fn lend<S: Any + Default + Send, R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        let mut scratch: Box<S> = self.take();
        let result = work(&mut scratch);
        self.give(scratch);
        result
    }
}

#[cfg(feature = "std")]
impl Scratch {
    fn take<S: Any + Default + Send>(&self) -> Box<S> {
        let mut spare = self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = spare.iter().rposition(|scratch| scratch.is::<S>());
        let scratch = last.and_then(|at| spare.swap_remove(at).downcast().ok());
        drop(spare);
        scratch.unwrap_or_default()
    }

    fn give(&self, scratch: Box<dyn Any + Send>) {
        self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(scratch);
    }
}

/// Without locks nothing is kept.
#[cfg(not(feature = "std"))]
#[expect(clippy::unused_self, reason = "as where something is kept")]
impl Scratch {
    fn take<S: Any + Default + Send>(&self) -> Box<S> {
        Box::default()
    }

    fn give(&self, _: Box<dyn Any + Send>) {}
}
