//! How a call of the program ended.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How a call of the program ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// The same, as it was.
    pub stdout_bytes: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// The exit code; none after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit code.
    ///
    /// # Errors
    /// It is another one.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code() != Some(code) {
            bail!("exit code {code} expected: {self}");
        }
        Ok(self)
    }

    /// Checks that standard output has `part`.
    ///
    /// # Errors
    /// It has not.
    pub fn says(self, part: &str) -> Result<Self> {
        if !self.stdout.contains(part) {
            bail!("{part:?} expected on stdout: {self}");
        }
        Ok(self)
    }

    /// Checks that standard error has `part`.
    ///
    /// # Errors
    /// It has not.
    pub fn complains(self, part: &str) -> Result<Self> {
        if !self.stderr.contains(part) {
            bail!("{part:?} expected on stderr: {self}");
        }
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self
            .words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        write!(f, "{}: ", words.join(" "))?;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal}")?,
            (None, None) => write!(f, "{}", self.status)?,
        }
        write!(
            f,
            " after {:.1} s\n--- stdout\n{}\n--- stderr\n{}",
            self.took.as_secs_f64(),
            self.stdout,
            self.stderr
        )
    }
}
