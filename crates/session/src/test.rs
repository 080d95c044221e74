//! One test: a session of its own, from its start to nothing left.

use std::path::PathBuf;
use std::sync::Arc;

use machinist_events::{Failure, Outcome};

use crate::{Cancel, Engine};

/// What to do at a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// End the test.
    #[default]
    Report,
    /// Stand still until a client says `continue` (`machinist attach`), then end the test.
    Pause,
}

/// A test to run.
#[derive(Debug, Clone)]
pub struct TestJob {
    /// The lab.
    pub lab: Arc<crate::standin::Lab>,
    /// The lab file, for people.
    pub file: PathBuf,
    /// The directory that relative paths of the lab are relative to.
    pub base: PathBuf,
    /// The name of the test, one of the lab's.
    pub test: String,
    /// What to do at a failure.
    pub on_failure: OnFailure,
    /// All timeouts of the test are multiplied by this.
    pub timeout_factor: f64,
    /// Where to leave the event log and the consoles; made where it is missing.
    pub keep_logs: Option<PathBuf>,
}

/// How a test ended. The events have told it already.
#[derive(Debug, Clone)]
pub struct TestResult {
    /// The test's name.
    pub test: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, machines included.
    pub seconds: f64,
    /// What went wrong, unless it passed.
    pub failure: Option<Failure>,
}

/// Runs a test to its end, and leaves nothing behind. `cancel` thrown once: the test ends as
/// interrupted, and cleans up. `kill` thrown: cleaning up asks nobody, it kills.
pub async fn run_test(engine: &Engine, job: TestJob, cancel: &Cancel, kill: &Cancel) -> TestResult {
    todo!("{job:?} {cancel:?} {kill:?} {:?}", engine.swept())
}
