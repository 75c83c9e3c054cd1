//! Memory that one piece of work leaves for the next.
//!
//! Fresh pages cost as much as the arithmetic that fills them; what a training step needs for a moment is therefore
//! kept, by type, and lent to whoever asks next. As many values of a type are kept as were ever in use at once.

use alloc::boxed::Box;
use core::any::Any;
use core::fmt;
use core::ops::{Deref, DerefMut};

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
    /// Lends a value that earlier work may have left anything in.
    pub(crate) fn lend<S: Any + Default + Send>(&self) -> Lent<'_, S> {
        Lent { value: Some(self.take().unwrap_or_default()), scratch: self }
    }

    #[cfg(feature = "std")]
    fn take<S: Any>(&self) -> Option<Box<S>> {
        let mut spare = self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = spare.iter().rposition(|value| value.is::<S>());
        spare.swap_remove(last?).downcast().ok()
    }

    #[cfg(feature = "std")]
    fn give(&self, value: Box<dyn Any + Send>) {
        self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(value);
    }

    /// Without locks nothing is kept.
    #[cfg(not(feature = "std"))]
    #[expect(clippy::unused_self, reason = "as where something is kept")]
    fn take<S>(&self) -> Option<Box<S>> {
        None
    }

    #[cfg(not(feature = "std"))]
    #[expect(clippy::unused_self, reason = "as where something is kept")]
    fn give(&self, _: Box<dyn Any + Send>) {}
}

/// A value of a [`Scratch`], which gets it back.
pub(crate) struct Lent<'a, S: Any + Send> {
    /// There until it is given back.
    value: Option<Box<S>>,
    scratch: &'a Scratch,
}

impl<S: Any + Send> Deref for Lent<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.value.as_deref().expect("not given back yet")
    }
}

impl<S: Any + Send> DerefMut for Lent<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.value.as_deref_mut().expect("not given back yet")
    }
}

impl<S: Any + Send> Drop for Lent<'_, S> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.scratch.give(value);
        }
    }
}
