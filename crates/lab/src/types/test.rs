//! Tests.

use std::path::PathBuf;
use std::time::Duration;

use super::{MachineName, Step};

/// How long a test may take that does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// One test of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its name, unique in the lab.
    pub name: String,
    /// For filters.
    pub tags: Vec<String>,
    /// How long it may take, the start of its machines included.
    pub timeout: Duration,
    /// The machines it needs, sorted: all of the lab, unless it names some.
    pub machines: Vec<MachineName>,
    /// What it does.
    pub body: Body,
}

/// What a test does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Step by step.
    Steps(Vec<Step>),
    /// A Python script; a relative path is relative to the lab file.
    Script(PathBuf),
}
