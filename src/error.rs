//! The one error type of the crate.
//!
//! Messages read `operation: argument has X, expected Y`, so that a log line alone says what to change.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// What went wrong: names the operation, the argument, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor, slice or image has the wrong shape.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation that refused.
        operation: &'static str,
        /// Which of its arguments.
        argument: &'static str,
        /// The shape it was given.
        found: Vec<usize>,
        /// The shape, or the rule, it wants.
        expected: String,
    },
    /// A number, name or option is outside its range.
    #[error("{operation}: {argument} is {found}, expected {expected}")]
    Invalid {
        /// The operation that refused.
        operation: &'static str,
        /// Which of its arguments.
        argument: &'static str,
        /// The value it was given.
        found: String,
        /// The values it takes.
        expected: String,
    },
    /// A state dict does not fit a network: every difference at once.
    #[error("load: {0}")]
    StateMismatch(LoadReport),
    /// Weights made for other conventions (padding, epsilon) than the network was built with.
    #[error(
        "load: weights come from {found}, expected {expected} (build the network with `.source(..)` set to the source of its weights)"
    )]
    SourceMismatch {
        /// The source of the weights.
        found: &'static str,
        /// The source the network was built for.
        expected: &'static str,
    },
    /// A file or byte string is not what its format says.
    #[error("{format}: {reason}")]
    Format {
        /// The format that was being read.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused to read or write.
    #[cfg(feature = "std")]
    #[error("{path}: {source}")]
    Io {
        /// The file concerned.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// A wrong shape; see [`Error::Shape`].
    pub fn shape(
        operation: &'static str,
        argument: &'static str,
        found: &[usize],
        expected: impl fmt::Display,
    ) -> Self {
        Self::Shape { operation, argument, found: found.into(), expected: alloc::format!("{expected}") }
    }

    /// A wrong value; see [`Error::Invalid`].
    pub fn invalid(
        operation: &'static str,
        argument: &'static str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::Invalid { operation, argument, found: alloc::format!("{found}"), expected: alloc::format!("{expected}") }
    }

    /// A malformed file; see [`Error::Format`].
    pub fn format(format: &'static str, reason: impl fmt::Display) -> Self {
        Self::Format { format, reason: alloc::format!("{reason}") }
    }

    /// A refusal of the system; see [`Error::Io`].
    #[cfg(feature = "std")]
    #[must_use]
    pub fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: alloc::format!("{}", path.display()), source }
    }
}

/// How a state dict fitted a network: what a strict load refuses and a partial load returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that were copied.
    pub loaded: usize,
    /// Names the network has and the state dict lacks.
    pub missing: Vec<String>,
    /// Names the state dict has and the network lacks.
    pub unexpected: Vec<String>,
    /// Names both have, with different shapes.
    pub misshapen: Vec<MisshapenTensor>,
}

/// A tensor that has another shape in a file than in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisshapenTensor {
    /// Its dotted name.
    pub name: String,
    /// Shape in the state dict.
    pub found: Vec<usize>,
    /// Shape in the network.
    pub expected: Vec<usize>,
}

impl LoadReport {
    /// Whether every tensor of both sides was matched.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tensors loaded, {} missing, {} unexpected, {} misshapen",
            self.loaded,
            self.missing.len(),
            self.unexpected.len(),
            self.misshapen.len()
        )?;
        for name in &self.missing {
            write!(f, "\n  missing: {name}")?;
        }
        for name in &self.unexpected {
            write!(f, "\n  unexpected: {name}")?;
        }
        for tensor in &self.misshapen {
            write!(f, "\n  misshapen: {} has shape {:?}, expected {:?}", tensor.name, tensor.found, tensor.expected)?;
        }
        Ok(())
    }
}
