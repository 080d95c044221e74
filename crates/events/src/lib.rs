//! The events of a session: what happened, to which machine, when.
//!
//! Everything that happens is one [`Event`], written once, as one line of JSON, to the session's
//! log. The terminal, JUnit and a second client are readers of it; nothing else tells them anything.
//!
//! Readers skip what they do not know: a new kind of happening is a new variant, and a line that
//! does not parse is from a newer machinist, not an error.

#![forbid(unsafe_code)]

mod failure;
mod plain;
mod what;

pub use failure::{CommandRecord, Failure, FailureKind, Frame};
pub use plain::{plain, plain_line, printed_line};
pub use what::{Level, Outcome, SkipReason, Stream, What};

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// One happening.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wall-clock time of the host, in seconds since the Unix epoch.
    pub time: f64,
    /// Time since the session began, in seconds, by a clock that never steps.
    pub elapsed: f64,
    /// The test during which it happened, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The machine it happened to, where it happened to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What happened.
    pub what: What,
}

impl Event {
    /// An event of now, `elapsed` after the session began.
    #[must_use]
    pub fn now(elapsed: Duration, what: What) -> Self {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        Self {
            time,
            elapsed: elapsed.as_secs_f64(),
            test: None,
            machine: None,
            what,
        }
    }

    /// The same event, said of `machine`.
    #[must_use]
    pub fn of_machine(mut self, machine: impl Into<String>) -> Self {
        self.machine = Some(machine.into());
        self
    }

    /// The same event, said of `test`.
    #[must_use]
    pub fn of_test(mut self, test: impl Into<String>) -> Self {
        self.test = Some(test.into());
        self
    }
}
