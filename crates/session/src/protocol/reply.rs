//! What the engine answers.

use std::collections::BTreeMap;
use std::fmt;

use machinist_events::{CommandRecord, Event};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Data, DriverInfo};

/// The engine's first line on every connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol, [`super::VERSION`].
    pub protocol: u32,
    /// machinist's own version.
    pub machinist: String,
    /// The session's id.
    pub session: String,
    /// The names of the machines, sorted.
    pub machines: Vec<String>,
    /// What each machine is: `vm` or `container`.
    #[serde(default)]
    pub kinds: BTreeMap<String, String>,
    /// The numbers of the VLANs, sorted.
    pub vlans: Vec<u32>,
    /// The test that the session is for, where it is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// What a driver's scripts want to know, where the session is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverInfo>,
}

/// One line from the engine, after the hello. Exactly one of `ok`, `error` and `part` is there;
/// `ok` and `error` are the end of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id; 0 for a line that was no request.
    pub id: u64,
    /// The request is done.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub ok: Option<Value>,
    /// The request has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// Something on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// Keeps `"ok": null` apart from no `ok`.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
}

impl Reply {
    /// The good end of request `id`.
    #[must_use]
    pub fn ok(id: u64, value: Value) -> Self {
        Self {
            id,
            ok: Some(value),
            error: None,
            part: None,
        }
    }

    /// The bad end of request `id`.
    #[must_use]
    pub fn error(id: u64, fault: Fault) -> Self {
        Self {
            id,
            ok: None,
            error: Some(fault),
            part: None,
        }
    }

    /// A part of the answer to request `id`.
    #[must_use]
    pub fn part(id: u64, part: Part) -> Self {
        Self {
            id,
            ok: None,
            error: None,
            part: Some(part),
        }
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A spawned command runs.
    Started(Started),
    /// What it printed to standard output.
    Stdout(Data),
    /// What it printed to standard error.
    Stderr(Data),
    /// Lines of the console.
    Console(ConsoleLines),
    /// Something that the QEMU of a VM tells, as it is in the QEMU machine protocol.
    QmpEvent(Value),
    /// An event, as it is in the log.
    Event(Box<Event>),
}

/// A spawned command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its number in the event log.
    pub command: u64,
}

/// Lines of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleLines {
    /// The number of the line after the last of these: where to go on.
    pub next: u64,
    /// The lines, without their ends and without control sequences.
    pub lines: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Executed {
    /// Exit status as a shell gives it: 128 + n for signal n, 124 after a timeout; -2 where nobody
    /// waits for the end.
    pub status: i32,
    /// What it printed to standard output.
    pub stdout: Data,
    /// What it printed to standard error until then.
    pub stderr: Data,
    /// How long it ran.
    pub seconds: f64,
}

/// A session and its machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The session's id.
    pub session: String,
    /// The test that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// True while a test waits for `continue`.
    pub paused: bool,
    /// True while there is a Python prompt in the test's script: `python.sock` in the session's
    /// directory carries its bytes.
    #[serde(default)]
    pub python: bool,
    /// Its machines, sorted by name.
    pub machines: Vec<MachineStatus>,
}

/// A machine of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// `vm` or `container`.
    pub kind: String,
    /// `off`, `starting`, `up`, `ready`, `stopping` or `failed`.
    pub state: String,
    /// Its addresses, as text with the prefix length.
    pub addresses: Vec<String>,
    /// Its ports that this host publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// A checkpoint of the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// Its name.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub created: f64,
    /// How long the machines stood still for it, in seconds.
    pub still: f64,
    /// The machines in it, sorted.
    pub machines: Vec<String>,
}

/// Machines were made of another. They run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloned {
    /// Their names.
    pub machines: Vec<String>,
}

/// The lab went back to a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WentBack {
    /// The checkpoint's name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// A port of a machine that this host publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Where it is reached, as `ADDRESS:PORT`.
    pub host: String,
    /// The port inside.
    pub guest: u16,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// What was asked for did not come true.
    Test,
    /// machinist or a machine under it failed.
    Machinery,
    /// The request makes no sense here: no such machine, no such path, a bad value.
    Usage,
    /// The client cancelled it.
    Cancelled,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Whose failure it is.
    pub kind: FaultKind,
    /// What went wrong, one sentence or a few lines.
    pub message: String,
    /// The command it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<CommandRecord>>,
}

impl Fault {
    /// What was asked for did not come true.
    #[must_use]
    pub fn test(message: impl fmt::Display) -> Self {
        Self::of(FaultKind::Test, message)
    }

    /// machinist or a machine under it failed.
    #[must_use]
    pub fn machinery(message: impl fmt::Display) -> Self {
        Self::of(FaultKind::Machinery, message)
    }

    /// The request makes no sense here.
    #[must_use]
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::of(FaultKind::Usage, message)
    }

    /// The client cancelled the request.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::of(FaultKind::Cancelled, "cancelled")
    }

    fn of(kind: FaultKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            command: None,
        }
    }

    /// The same fault, about `command`.
    #[must_use]
    pub fn about(mut self, command: CommandRecord) -> Self {
        self.command = Some(Box::new(command));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
