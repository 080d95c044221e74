//! Exit codes: what scripts and CI may rely on. A failed test and failed machinery never share one.

use std::process::ExitCode;

/// Everything held; or the verb did what it was asked for.
pub const PASSED: u8 = 0;
/// `doctor` has warnings.
pub const WARNINGS: u8 = 1;
/// The command line makes no sense; or `doctor` has found something that does not work.
pub const USAGE: u8 = 2;
/// Nothing was selected: no test has such a name, no session is live.
pub const NOTHING_SELECTED: u8 = 4;
/// The host lacks something that is needed: a program, a right.
pub const HOST: u8 = 96;
/// A test failed.
pub const TEST_FAILED: u8 = 100;
/// The lab file is wrong.
pub const LAB: u8 = 104;
/// The machinery failed: a boot, an agent, a VMM, or machinist itself.
pub const MACHINERY: u8 = 105;
/// A test took longer than it may.
pub const TIMEOUT: u8 = 124;
/// `run` or `shell` could not run the command. Otherwise they end with the command's own status.
pub const NOT_RUN: u8 = 125;
/// The user ended it.
pub const INTERRUPTED: u8 = 130;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// See [`PASSED`].
    Passed,
    /// See [`WARNINGS`].
    Warnings,
    /// What `doctor` has found. See [`USAGE`].
    Failures,
    /// See [`USAGE`].
    Usage,
    /// See [`NOTHING_SELECTED`].
    NothingSelected,
    /// See [`HOST`].
    Host,
    /// See [`TEST_FAILED`].
    TestFailed,
    /// See [`LAB`].
    Lab,
    /// See [`MACHINERY`].
    Machinery,
    /// See [`TIMEOUT`].
    Timeout,
    /// See [`NOT_RUN`].
    NotRun,
    /// See [`INTERRUPTED`].
    Interrupted,
    /// The status of a command that was run for the user.
    Command(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Passed => PASSED,
            Self::Warnings => WARNINGS,
            Self::Failures | Self::Usage => USAGE,
            Self::NothingSelected => NOTHING_SELECTED,
            Self::Host => HOST,
            Self::TestFailed => TEST_FAILED,
            Self::Lab => LAB,
            Self::Machinery => MACHINERY,
            Self::Timeout => TIMEOUT,
            Self::NotRun => NOT_RUN,
            Self::Interrupted => INTERRUPTED,
            Self::Command(status) => status,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What the codes mean, for `machinist --help`.
pub const HELP: &str = "\
Exit codes:
  0    passed
  1    `doctor` has warnings
  2    the command line makes no sense; or `doctor` has found failures
  4    nothing was selected
  96   the host lacks something
  100  a test failed
  104  the lab file is wrong
  105  the machinery failed: boot, agent, VMM
  124  a test took too long
  125  `run` could not run the command
  130  interrupted";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        for exit in [
            Exit::Passed,
            Exit::Warnings,
            Exit::Failures,
            Exit::Usage,
            Exit::NothingSelected,
            Exit::Host,
            Exit::TestFailed,
            Exit::Lab,
            Exit::Machinery,
            Exit::Timeout,
            Exit::NotRun,
            Exit::Interrupted,
        ] {
            let start = format!("  {:<5}", exit.code());
            assert!(
                HELP.lines().any(|line| line.starts_with(&start)),
                "{exit:?}"
            );
        }
    }
}
