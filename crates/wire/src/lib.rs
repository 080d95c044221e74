//! The agent protocol: frames and messages, no IO.
//!
//! Host and agent speak over one byte stream, the channel. [`Endpoint`] is the state machine of
//! either end: bytes that arrived go in, [`Event`]s and bytes to send come out. What travels inside
//! is in [`message`] (requests and replies) and [`tree`] (files). One page of prose:
//! `docs/protocol.md`.
//!
//! Nothing here trusts the other end. A frame that breaks the rules is a [`ProtocolError`], and
//! memory is bounded by the window of each stream, whatever arrives.

#![forbid(unsafe_code)]

mod blob;
mod endpoint;
mod frame;
mod hello;
mod link;
pub mod message;
pub mod renewal;
mod stream;
pub mod tree;

pub use blob::Blob;
pub use endpoint::{Endpoint, Event, Role};
pub use frame::{MAX_DATA, MAX_PAYLOAD, MAX_REQUEST};
pub use hello::{Hello, Info, MAGIC, VERSION};
pub use stream::{LANES, Lane, StreamId, WINDOW};

use thiserror::Error;

/// The other end broke the protocol. The channel cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The other end speaks another version.
    #[error("protocol version {theirs} at the other end, {VERSION} here")]
    Version {
        /// Of the other end.
        theirs: u16,
    },
    /// A frame announces more bytes than any frame may have.
    #[error("frame of {length} bytes, at most {limit} are allowed")]
    Oversized {
        /// As announced.
        length: u32,
        /// The most that is allowed here.
        limit: u32,
    },
    /// A frame of no known kind, or one that this end never receives.
    #[error("unexpected frame of kind {kind}")]
    UnexpectedFrame {
        /// The byte that tells the kind.
        kind: u8,
    },
    /// A frame for a stream that does not exist.
    #[error("frame for unknown stream {stream}")]
    UnknownStream {
        /// The stream's number.
        stream: StreamId,
    },
    /// More data than the window allowed, or data after the end of a lane.
    #[error("stream {stream} sent more than it was allowed to")]
    Overrun {
        /// The stream's number.
        stream: StreamId,
    },
    /// The bytes of a message do not mean anything.
    #[error("malformed {what}")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
}
