//! What requests are about: commands, their terminals and ends, and how a script ended.

use std::collections::BTreeMap;

use machinist_events::{CommandRecord, Frame};
use serde::{Deserialize, Serialize};

use super::Data;

/// What to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Arguments as they are, the program first; no shell.
    Argv(Vec<String>),
    /// Text for the machine's bash (`sh` where there is none), in the login environment and under
    /// `set -euo pipefail`.
    Shell(String),
}

/// A command for a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// The user who runs it; root where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Added to the login environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it starts; `/tmp` where left out, as for the commands of NixOS tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What it reads on standard input. Left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Data>,
    /// Seconds after which its whole process group is killed and its status is 124. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
}

impl Command {
    /// `script` for the shell, as root, without a time limit.
    #[must_use]
    pub fn shell(script: impl Into<String>) -> Self {
        Self::of(Program::Shell(script.into()))
    }

    /// `program` as root, without a time limit.
    #[must_use]
    pub fn of(program: Program) -> Self {
        Self {
            program,
            user: None,
            env: BTreeMap::new(),
            cwd: None,
            input: None,
            timeout: None,
        }
    }
}

/// How a repeated command has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// With status 0.
    Success,
    /// With another status.
    Failure,
}

/// A terminal for a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pty {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
    /// The value for `TERM`.
    pub term: String,
}

/// How a test's script ended, said by the script's runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptReport {
    /// The exception's class, without its module.
    pub exception: String,
    /// What it says.
    pub message: String,
    /// The script's own frames, outermost first.
    #[serde(default)]
    pub frames: Vec<Frame>,
    /// True where machinist itself failed, not what the test asked for.
    #[serde(default)]
    pub machinery: bool,
    /// The whole stack as Python prints it, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// The command that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRecord>,
}
