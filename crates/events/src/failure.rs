//! What is told of a failure.

use serde::{Deserialize, Serialize};

/// Whose failure it is. The two never share an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// What the test asked for did not hold.
    Test,
    /// The machinery failed: boot, agent, VMM.
    Machinery,
}

/// A frame of the test script's own code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The script.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// The function, or `<module>`.
    pub function: String,
    /// The source line, trimmed.
    pub source: String,
}

/// The command that a failure is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Where it ran.
    pub machine: String,
    /// As the script wrote it.
    pub command: String,
    /// Exit status as a shell gives it; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// The end of what it printed to standard output.
    pub stdout: String,
    /// The end of what it printed to standard error.
    pub stderr: String,
}

/// What went wrong, with all that a person needs to see why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose failure it is.
    pub kind: FailureKind,
    /// One sentence, or a few lines.
    pub message: String,
    /// The class of the exception that the script ended with, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// All of the script's stack and the driver's, as Python prints it, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// Where in the script, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// The command it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRecord>,
    /// What else went wrong: failed units, kernel messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}
