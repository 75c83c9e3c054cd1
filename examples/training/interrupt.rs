//! Ctrl-C as a wish to stop after the current step.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::Result;

/// What shells take for "ended by Ctrl-C": 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// Whether the user asked to stop, by Ctrl-C or, where there are such signals, by `SIGTERM` or `SIGHUP`.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. Who asks a second time does not want to wait: the process ends at once.
    pub(crate) fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        })?;
        Ok(Self(asked))
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Success, unless the user asked to stop.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.is_asked() { INTERRUPTED.into() } else { ExitCode::SUCCESS }
    }
}
