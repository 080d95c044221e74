//! The preamble: how two ends find each other on a channel that may carry anything before.

use serde::{Deserialize, Serialize};

/// The protocol's version. Both ends must have the same: the agent travels with the host.
pub const VERSION: u16 = 1;

/// What a hello begins with. As the length of a frame, its first four bytes are far beyond any
/// limit, so a hello can never be taken for a frame nor a frame for a hello.
pub const MAGIC: [u8; 16] = *b"\xffmachinist\0wire\n";

/// Bytes from the magic to the body: magic, version, nonce, length of the body.
pub(crate) const FIXED: usize = 16 + 2 + 8 + 2;

/// The most bytes in the body of a hello.
pub(crate) const MAX_BODY: usize = 4096;

/// What each end says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Of the protocol, as the sender speaks it.
    pub version: u16,
    /// Chosen by the host and given back by the agent, so that the host knows its answer from
    /// one that was meant for an earlier connection. Zero where an agent announces itself.
    pub nonce: u64,
    /// What the agent says of itself; none from a host.
    pub info: Option<Info>,
}

/// What an agent says of itself and its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the agent, as machinist counts.
    pub version: String,
    /// Release of the running kernel, as of `uname -r`.
    pub kernel: String,
    /// Random name of this boot, from the kernel.
    pub boot_id: String,
    /// The agent's process id inside the machine.
    pub pid: u32,
    /// Whether the agent is the machine's init: it waits for `Configure`, or it stays PID 1.
    pub init: bool,
    /// Whether there is no agent, and a shell in the machine is asked in its place: all is slower, and
    /// neither terminals nor streams to sockets can be had.
    pub plain: bool,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = match &self.info {
            Some(info) => postcard::to_allocvec(info).unwrap_or_default(),
            None => Vec::new(),
        };
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(FIXED + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Length of the whole hello whose fixed part is given, or none where it is too long to be one.
    pub(crate) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
        let body = usize::from(u16::from_le_bytes([fixed[26], fixed[27]]));
        (body <= MAX_BODY).then_some(FIXED + body)
    }

    /// Reads a whole hello, as [`Hello::length`] cut it. A body that says nothing is no info: the
    /// body of another version may look different.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let version = u16::from_le_bytes(bytes.get(16..18)?.try_into().ok()?);
        let nonce = u64::from_le_bytes(bytes.get(18..26)?.try_into().ok()?);
        let body = bytes.get(FIXED..)?;
        let info = match body {
            [] => None,
            body => postcard::from_bytes(body).ok(),
        };
        Some(Self {
            version,
            nonce,
            info,
        })
    }
}
