//! Requests, replies, and what they are made of.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::renewal::{Renewal, Renewed, Settled};
use crate::{Blob, ProtocolError};

/// What a stream is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a command: [`Reply::Started`], then [`Reply::Exited`].
    Run(Command),
    /// Connect to a socket in the guest: [`Reply::Done`], then bytes both ways.
    Connect(Address),
    /// Wait until something holds: [`Reply::Done`]. The deadline is the host's, who closes.
    Wait(Condition),
    /// Unpack a tree that comes on the main lane ([`crate::tree`]): [`Reply::Done`].
    Put(Put),
    /// Pack a tree onto the main lane.
    Get {
        /// A file or directory.
        path: Blob,
    },
    /// To an agent that is the machine's init: who this machine is. [`Reply::Configured`].
    Configure(Identity),
    /// Before the machine is saved: become quiet, and say what there is. [`Reply::Settled`].
    Settle {
        /// Written to the journal before that: what follows there is after a restore. None if empty.
        mark: String,
    },
    /// After it was restored: [`Reply::Renewed`].
    Renew(Box<Renewal>),
    /// To an agent that is PID 1: sync and stop, or start over. No reply but [`Reply::Failed`].
    Power(Power),
}

/// A host's word on a stream that it opened with [`Request::Run`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Send a signal to the command's process group.
    Signal(i32),
    /// The deadline passed: end the whole process group, politely at first.
    Expire,
    /// The terminal has a new size.
    Resize(Size),
}

/// An agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The command runs.
    Started {
        /// Its process id, which is also that of its process group.
        pid: u32,
    },
    /// The command ended.
    Exited(Exit),
    /// What was asked for is done, or holds.
    Done,
    /// This machine is what [`Identity`] says.
    Configured {
        /// The agent now hands over to another process of itself: a new hello follows.
        restarts: bool,
    },
    /// This machine is ready to be saved.
    Settled(Settled),
    /// This machine is what [`Renewal`] says.
    Renewed(Renewed),
    /// What was asked for cannot be done.
    Failed(Failure),
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, with the path or name; lowercase, no period.
    pub text: String,
    /// The guest's error number, or 0.
    pub errno: i32,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Variables set beside (or instead of) those of a login.
    pub env: Vec<(Blob, Blob)>,
    /// Leave the login's environment out.
    pub clear_env: bool,
    /// Where it runs; else the user's home.
    pub dir: Option<Blob>,
    /// By name or number; else root (the agent's own user).
    pub user: Option<String>,
    /// Whether the main lane towards the agent is its standard input; else that is `/dev/null`.
    pub stdin: bool,
    /// Run it on a terminal of this size. Output comes on the main lane alone.
    pub pty: Option<Size>,
    /// Whether output counts until all who hold the pipe have let go of it. Else it ends with the
    /// command: what a background process prints later is thrown away.
    pub linger: bool,
}

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program and its arguments.
    Argv(Vec<Blob>),
    /// A script for the guest's bash, or its `sh` where there is no bash.
    Shell {
        /// Its text.
        script: Blob,
        /// Begin with `set -euo pipefail` (`set -eu` without bash).
        strict: bool,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It ended itself, with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was ended because its time was over.
    TimedOut,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// A socket inside the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A Unix stream socket.
    Unix(Blob),
    /// A TCP port.
    Tcp {
        /// An address, `localhost`, or a name of the guest's `/etc/hosts`.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What can be waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// A path exists.
    File(Blob),
    /// A TCP port is listened on, or is not.
    Port {
        /// As in [`Address::Tcp`].
        host: String,
        /// The port.
        port: u16,
        /// Wait until it is open; else until it is closed.
        open: bool,
    },
    /// A Unix socket takes connections.
    Socket {
        /// Where it is.
        path: Blob,
        /// A datagram socket.
        datagram: bool,
    },
}

/// Where a tree goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The target. Missing parents are made.
    pub path: Blob,
    /// Where the target is a directory already, the tree goes into it under this name.
    pub name: Blob,
    /// Keep the owners' numbers.
    pub owners: bool,
}

/// Who a machine is: what an agent that is its init applies before the machine's own init runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host name.
    pub hostname: String,
    /// Contents of `/etc/hosts`, beside the lines for the loopback.
    pub hosts: Vec<HostLine>,
    /// Contents of `/etc/machine-id`: 32 hex digits. Empty: left alone.
    pub machine_id: String,
    /// Network interfaces, found by MAC.
    pub interfaces: Vec<Interface>,
    /// Shared folders.
    pub mounts: Vec<Mount>,
    /// The host's clock, in nanoseconds since 1970; 0 leaves the guest's alone. It is set where
    /// the guest's is more than two seconds off.
    pub clock: u64,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLine {
    /// The address.
    pub address: IpAddr,
    /// The names, most usual first.
    pub names: Vec<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// How to find it.
    pub mac: [u8; 6],
    /// What to call it.
    pub name: String,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A shared folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// How it is shared.
    pub kind: MountKind,
    /// The tag of the device.
    pub tag: String,
    /// Where it goes.
    pub target: Blob,
    /// Whether the guest may write.
    pub writable: bool,
}

/// How a folder is shared with a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// 9p over virtio.
    Plan9,
    /// virtiofs.
    Virtiofs,
}

/// How a machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// Power off.
    Off,
    /// Start over.
    Reboot,
}

/// A message as bytes.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Only a type that postcard does not know can fail here, and there is none above.
    postcard::to_allocvec(message).unwrap_or_default()
}

/// A message from bytes.
///
/// # Errors
/// The bytes are not such a message, or go on after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ProtocolError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(ProtocolError::Malformed { what }),
    }
}
