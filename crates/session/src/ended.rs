//! How the body of a test ended.

use machinist_events::{Failure, FailureKind, Outcome};

use crate::protocol::Fault;
use crate::steps;

/// How the body of a test ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Option<Failure>,
}

impl Ended {
    pub(crate) fn passed() -> Self {
        Self {
            outcome: Outcome::Passed,
            failure: None,
        }
    }

    pub(crate) fn interrupted() -> Self {
        Self {
            outcome: Outcome::Interrupted,
            failure: None,
        }
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        let outcome = match failure.kind {
            FailureKind::Test => Outcome::Failed,
            FailureKind::Machinery => Outcome::Error,
        };
        Self {
            outcome,
            failure: Some(failure),
        }
    }

    pub(crate) fn fault(fault: Fault) -> Self {
        Self::failed(steps::failure(fault.to_string(), fault))
    }

    pub(crate) fn machinery(message: String) -> Self {
        Self::failed(machinery(message))
    }

    /// The test's time was over; `last` is what its body said when it was ended.
    pub(crate) fn timed_out(message: String, last: Option<Failure>) -> Self {
        let failure = Failure {
            kind: FailureKind::Test,
            message,
            exception: None,
            traceback: None,
            frames: last.as_ref().map_or(Vec::new(), |last| last.frames.clone()),
            command: last.and_then(|last| last.command),
            also: Vec::new(),
        };
        Self {
            outcome: Outcome::TimedOut,
            failure: Some(failure),
        }
    }
}

/// A failure of ours.
pub(crate) fn machinery(message: String) -> Failure {
    steps::failure(message, Fault::machinery(""))
}
