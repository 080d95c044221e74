//! What can go wrong between host and guest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use machinist_tree::TreeError;
use machinist_wire::ProtocolError;
use thiserror::Error;

/// Why a channel ended. Everyone who used it is told the same.
#[derive(Debug, Clone, Error)]
pub enum ChannelError {
    /// The machine's end was closed: it stopped, or the agent died.
    #[error("the channel to the machine was closed")]
    Closed,
    /// Reading or writing failed.
    #[error("the channel to the machine broke")]
    Io(#[source] Arc<io::Error>),
    /// The agent does not keep to the protocol.
    #[error("the agent broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The agent said something that was not asked for.
    #[error("the agent broke the protocol: {0}")]
    Unexpected(&'static str),
    /// The agent was asked for a sign of life, and gave none.
    #[error("the agent has not answered for {} s: the machine stands still", within.as_secs_f64())]
    Silent {
        /// How long it was waited for after it had been asked.
        within: Duration,
    },
    /// Another agent speaks at the other end now: the machine started over.
    #[error("the agent was started anew")]
    Restarted,
}

/// An agent could not be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nothing answered in time.
    #[error("no agent answered within {within:?}")]
    TimedOut {
        /// How long it was waited for.
        within: Duration,
    },
    /// The channel ended first.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Something could not be done in a guest.
#[derive(Debug, Error)]
pub enum GuestError {
    /// There is no way to the guest any more.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The guest says why not.
    #[error("{text}")]
    Refused {
        /// In the agent's words, with the path or name it is about.
        text: String,
        /// The guest's error number, or 0.
        errno: i32,
    },
    /// It did not come to pass in time.
    #[error("timed out while waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
    },
    /// A file could not be read or written on the host, or the guest sent a tree that is not one.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A command that is longer than the protocol takes.
    #[error("the request is too long")]
    TooLong,
}
