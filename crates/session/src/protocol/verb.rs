//! What a client asks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use machinist_events::Frame;
use serde::{Deserialize, Serialize};

use super::Data;

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The client's own number for it, unique among those that have no end yet.
    pub id: u64,
    /// What is asked.
    #[serde(rename = "do")]
    pub verb: Verb,
}

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
    /// The command that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<machinist_events::CommandRecord>,
}

/// What a client can ask for. Times are in seconds; a timeout that is left out is no limit. The
/// answer (`ok`) is named where it is more than `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// The session and its machines: [`super::Status`].
    Status,
    /// Begins to start machines, all where none is named. With `wait` it ends when they are up.
    Start {
        /// Their names.
        #[serde(default)]
        machines: Vec<String>,
        /// Whether to wait until their agents answer.
        #[serde(default)]
        wait: bool,
    },
    /// Asks a machine's system to power off and waits until it has.
    Shutdown {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Cuts a machine's power.
    Crash {
        /// The machine.
        machine: String,
    },
    /// Starts a running machine's system anew.
    Reboot {
        /// The machine.
        machine: String,
    },
    /// Waits until a machine is off.
    WaitShutdown {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until a machine's system says that its start has finished. Starts the machine.
    WaitReady {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Runs a command to its end: [`super::Executed`]. Starts the machine, as all verbs below do.
    Execute {
        /// The machine.
        machine: String,
        /// The command.
        command: Command,
        /// End at once, with status -2, and leave the command running.
        #[serde(default, skip_serializing_if = "is_false")]
        detach: bool,
    },
    /// Repeats a command until it ends as wanted: [`super::Executed`] of the last time.
    Retry {
        /// The machine.
        machine: String,
        /// The command. Its own timeout is for one time.
        command: Command,
        /// How it has to end.
        until: Until,
        /// After which one last time is tried, and then it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Runs a command whose output comes in parts, and that takes input:
    /// parts `started`, `stdout` and `stderr`; [`super::Executed`] without output.
    Spawn {
        /// The machine.
        machine: String,
        /// The command.
        command: Command,
    },
    /// Gives input to a spawned command.
    Send {
        /// The id of the request that spawned it, on this connection.
        of: u64,
        /// The input.
        data: Data,
    },
    /// Ends a spawned command's input.
    CloseInput {
        /// The id of the request that spawned it, on this connection.
        of: u64,
    },
    /// Sends a signal to a spawned command's process group.
    Signal {
        /// The id of the request that spawned it, on this connection.
        of: u64,
        /// The signal's number on Linux.
        signal: i32,
    },
    /// Ends a request: it is answered with an error of kind `cancelled`, and what it started in a
    /// machine is killed.
    Cancel {
        /// The id of the request, on this connection.
        of: u64,
    },
    /// Ends a `console` request well: the client has seen what it waited for.
    Done {
        /// The id of the request, on this connection.
        of: u64,
    },
    /// Waits until a systemd unit is active. A unit that failed, or that is inactive with no job
    /// pending, is an error.
    WaitUnit {
        /// The machine.
        machine: String,
        /// The unit, with its suffix or as a service.
        unit: String,
        /// Whose manager to ask; the system's where left out.
        #[serde(default)]
        user: Option<String>,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until something listens on a TCP port, or nothing does.
    WaitPort {
        /// The machine.
        machine: String,
        /// The port.
        port: u16,
        /// The address or name, as seen inside.
        address: String,
        /// Which of the two.
        open: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until a path exists.
    WaitFile {
        /// The machine.
        machine: String,
        /// The path.
        path: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until something listens on a Unix socket.
    WaitSocket {
        /// The machine.
        machine: String,
        /// Its path.
        path: String,
        /// For a datagram socket.
        #[serde(default)]
        datagram: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// The console, from a line on: parts `console` until `done` is asked.
    Console {
        /// The machine.
        machine: String,
        /// The first line wanted, counted from 0 over all starts of the machine in this session.
        #[serde(default)]
        from: u64,
        /// What the client waits for, to be told to the user.
        #[serde(default)]
        waiting_for: Option<String>,
        /// End with what is there instead of waiting for more.
        #[serde(default)]
        only_past: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Copies a file or a tree of the host into a machine.
    CopyIn {
        /// The machine.
        machine: String,
        /// An absolute path of the host.
        host: PathBuf,
        /// The target itself (not the directory around it).
        guest: String,
    },
    /// Copies a file or a tree out of a machine.
    CopyOut {
        /// The machine.
        machine: String,
        /// What to copy.
        guest: String,
        /// The target itself, an absolute path of the host.
        host: PathBuf,
    },
    /// Writes a line into the event log.
    Log {
        /// The text.
        text: String,
        /// The machine it is about.
        #[serde(default)]
        machine: Option<String>,
    },
    /// A part of the test begins.
    SubtestStarted {
        /// Its name.
        name: String,
    },
    /// A part of the test has ended.
    SubtestFinished {
        /// Its name.
        name: String,
        /// How long it took.
        seconds: f64,
        /// What went wrong; left out where nothing did.
        #[serde(default)]
        message: Option<String>,
    },
    /// The script ends; left out report: it passed. Only for the script of a test.
    Report {
        /// What went wrong.
        #[serde(default)]
        failure: Option<ScriptReport>,
    },
    /// The event log: parts `event`.
    Events {
        /// Begin with what happened before.
        #[serde(default)]
        past: bool,
        /// Go on with what happens, until the session ends.
        #[serde(default)]
        follow: bool,
        /// Only events of these machines; all where empty.
        #[serde(default)]
        machines: Vec<String>,
    },
    /// Lets a paused test go on to its end.
    Continue,
    /// Ends the session; answered before it ends.
    Down,
    /// Turns the connection into the stream of a command: see [`crate::stream`]. With no command, a
    /// login shell. The only request that may be open on its connection.
    Shell {
        /// The machine.
        machine: String,
        /// What to run.
        #[serde(default)]
        command: Option<Command>,
        /// The terminal, where there is one.
        #[serde(default)]
        pty: Option<Pty>,
    },
}

fn is_false(value: &bool) -> bool {
    !*value
}
