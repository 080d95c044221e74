//! Errors of this crate.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use crate::lifecycle::Refused;

/// Why a machine did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The request made no sense in the machine's state.
    #[error("{machine}")]
    Refused {
        /// The machine.
        machine: String,
        /// Why.
        #[source]
        why: Refused,
    },
    /// The machine died, or could not be started.
    #[error("{machine}: {reason}")]
    Failed {
        /// The machine.
        machine: String,
        /// What was seen, one sentence.
        reason: String,
        /// The end of its console, and of its backend's own output.
        last_words: Vec<String>,
    },
    /// The machine is off.
    #[error("{machine} is off")]
    Off {
        /// The machine.
        machine: String,
    },
    /// Something did not come in time.
    #[error("{machine}: {what} did not come within {within:?}")]
    Late {
        /// The machine.
        machine: String,
        /// What.
        what: &'static str,
        /// The time that it had.
        within: Duration,
    },
    /// QEMU's control socket did not do what it should.
    #[error("{machine}")]
    Qmp {
        /// The machine.
        machine: String,
        /// Why.
        #[source]
        why: crate::QmpError,
    },
    /// What was asked for, no machine of this kind can do.
    #[error("{machine}: {why}")]
    Unable {
        /// The machine.
        machine: String,
        /// One sentence.
        why: String,
    },
    /// The machine's task has ended, as it does when its handles are dropped.
    #[error("{machine} is gone")]
    Gone {
        /// The machine.
        machine: String,
    },
}

/// Why a backend could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] crate::path_error::PathError),
    /// The program.
    #[error("cannot run {program}")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
    /// The helper that prepares a container.
    #[error("{0}")]
    Helper(String),
    /// The helper's socket.
    #[error("the container's launcher ended without a word")]
    HelperGone(#[source] std::io::Error),
    /// What a start script's container stands on.
    #[error(transparent)]
    Ground(crate::ground::GroundError),
    /// The network.
    #[error("cannot attach the machine to its network")]
    Network(#[source] std::io::Error),
    /// What the host lacks, or the specification asks in vain.
    #[error("{0}")]
    Unable(String),
}

/// The whole chain of an error's causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
