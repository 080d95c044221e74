//! What makes a machine that was restored from a snapshot right again.
//!
//! A snapshot is restored many times, and each time some things must differ or be true of now: the
//! clock, random numbers, who the machine is. [`Settled`] is what the agent says before the save,
//! [`Renewal`] what the host says after a restore, in one request.

use serde::{Deserialize, Serialize};

use crate::Blob;
use crate::message::Identity;

/// How a machine is before it is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The SSH host keys that are there.
    pub host_keys: Vec<HostKeyFile>,
    /// Processes that serve SSH and hold host keys in memory.
    pub sshd: Vec<u32>,
    /// Whether the kernel takes note of a restore by itself, and makes its random state anew before
    /// anything else runs.
    pub vmgenid: bool,
    /// What stands still until the renewal: control groups below `/sys/fs/cgroup`.
    pub frozen: Vec<Blob>,
    /// What could not be done.
    pub lacks: Vec<Lack>,
}

/// What could not be done, though nothing is wrong because of it that would make the machine useless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What it is about: `random state`, `journal`, ...
    pub what: String,
    /// Why; lowercase, no period.
    pub why: String,
}

/// A private SSH host key of a machine. The public one is beside it, as `.pub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeyFile {
    /// Where it is.
    pub path: Blob,
    /// Its kind, as `ssh-keygen -t` takes it: `ed25519`, `ecdsa`, `rsa`.
    pub kind: String,
    /// Length of its public part, in bits, where the kind has a choice; else 0.
    pub bits: u32,
}

/// An SSH host key to put in the place of an older one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// Where the private part goes.
    pub path: Blob,
    /// The private part, as OpenSSH writes it. Empty: the key goes, and none comes.
    pub private: Blob,
    /// The line of the public part.
    pub public: Blob,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey")
            .field("path", &self.path)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// What a restored machine is told. A part that is empty leaves its matter alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The host's clock, in nanoseconds since 1970.
    pub clock: u64,
    /// Bytes that nobody else has: the kernel's random state is made anew with them.
    pub entropy: Blob,
    /// Who the machine was, and who it is now.
    pub change: Option<Change>,
    /// SSH host keys.
    pub host_keys: Vec<HostKey>,
    /// Processes that are told to read their configuration anew, after the host keys are there.
    pub reload: Vec<u32>,
    /// Control groups that may go on, after all else is done.
    pub thaw: Vec<Blob>,
    /// Timers that would all fire at once when the clock jumps.
    pub due: Option<DueTimers>,
    /// Written to the journal.
    pub mark: String,
}

/// What systemd's manager is told of timers that were due while the machine was saved: messages of
/// D-Bus, said on a connection of its own behind the greeting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueTimers {
    /// Calls without answers that stop them, before the clock is set.
    pub stop: Blob,
    /// For each a call that is answered with its state; the clock is set when that is `inactive`.
    pub ask: Vec<Blob>,
    /// Calls without answers that start them, when all is right.
    pub start: Blob,
}

/// A change of identity. Interfaces and what else is a list go by their places: the first becomes
/// the first. The clocks within are of no account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Who the machine was when it was saved.
    pub from: Identity,
    /// Who it is from now on. Shared folders that it has more than before are mounted.
    pub to: Identity,
}

/// A machine is right again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The guest's clock when this was said, in nanoseconds since 1970.
    pub clock: u64,
    /// What could not be done.
    pub lacks: Vec<Lack>,
}
