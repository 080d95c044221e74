//! The host's end of the agent: commands, files, waits, streams.
//!
//! [`Agent::connect`] takes a byte stream to a machine and gives a handle that many may hold. What
//! they do with it goes on side by side; each is one stream of the channel ([`machinist_wire`]).
//! When the channel ends, everyone who waits gets the reason at once.

#![forbid(unsafe_code)]

mod agent;
mod alive;
mod command;
mod copy;
mod driver;
mod error;
mod journal;
mod link;
mod process;
mod renewal;
pub mod shell;
mod socket;
mod stream;
pub mod systemd;
mod wait;

pub use agent::Agent;
pub use command::{Command, Output};
pub use copy::Copied;
pub use error::{ChannelError, ConnectError, GuestError};
pub use journal::Lines;
pub use machinist_wire::Info;
pub use machinist_wire::message::{
    Address, Exit, HostLine, Identity, Interface, Mount, MountKind, Program, Size,
};
pub use process::{Process, Running};
pub use renewal::{Change, HostKey, HostKeyFile, Lack, Renewal, Renewed, Settled, entropy};
pub use socket::Socket;
pub use stream::{Reader, Stream, Writer};

/// The agent: a static program for Linux. Empty where the build could not make one.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/machinist-agent"));
