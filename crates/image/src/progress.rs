//! What a build tells while it runs, and how to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::error::ImageError;

/// A step of a build. `what` is always what is being built, such as `debian:bookworm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Another process builds the same thing; we wait for it.
    Waiting {
        /// What is being built.
        what: String,
        /// Who builds it, where we know.
        pid: Option<u32>,
    },
    /// A build begins.
    Started {
        /// What is being built.
        what: String,
    },
    /// What the build does now.
    Doing {
        /// What is being built.
        what: String,
        /// Such as `downloading packages`.
        doing: String,
    },
    /// A build is done, and in the cache.
    Finished {
        /// What was built.
        what: String,
        /// How long it took.
        took: Duration,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waiting {
                what,
                pid: Some(pid),
            } => write!(
                f,
                "{what}: waiting for another machinist (pid {pid}) that builds it"
            ),
            Self::Waiting { what, pid: None } => {
                write!(f, "{what}: waiting for another machinist that builds it")
            }
            Self::Started { what } => write!(f, "{what}: building"),
            Self::Doing { what, doing } => write!(f, "{what}: {doing}"),
            Self::Finished { what, took } => {
                write!(f, "{what}: built in {:.1} s", took.as_secs_f64())
            }
        }
    }
}

/// Stops a build from another thread: what runs is killed, what is half made is removed, and
/// [`crate::Store::ensure`] returns [`ImageError::Interrupted`].
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Not cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops all builds that were given this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once cancelled, to be used with `?`.
    pub(crate) fn check(&self) -> Result<(), ImageError> {
        if self.is_cancelled() {
            Err(ImageError::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// What a builder gets: a name, a place to tell what it does, and a way to learn that it should stop.
pub(crate) struct Job<'a> {
    /// What is being built.
    pub(crate) what: &'a str,
    /// Where steps go.
    pub(crate) progress: &'a dyn Fn(Step),
    /// Whether to go on.
    pub(crate) cancel: &'a Cancel,
}

impl Job<'_> {
    /// Tells what is done now.
    pub(crate) fn doing(&self, doing: &str) {
        (self.progress)(Step::Doing {
            what: self.what.to_owned(),
            doing: doing.to_owned(),
        });
    }
}
