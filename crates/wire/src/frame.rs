//! Frames: what the channel carries once both ends have said hello.

use crate::{ProtocolError, StreamId};

/// The most bytes of data in one frame. Small enough that a frame of a loud stream delays the
/// frames of others only a little, also over a slow virtio-serial port.
pub const MAX_DATA: usize = 32 * 1024;
/// The most bytes in any frame that an agent may send.
pub const MAX_PAYLOAD: u32 = 64 * 1024;
/// The most bytes in any frame that a host may send: a request carries a command's environment.
pub const MAX_REQUEST: u32 = 4 * 1024 * 1024;

/// Length, stream, kind, lane.
pub(crate) const HEADER: usize = 10;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Host opens a stream; the payload is the request.
    Open = 1,
    /// A reply of the agent, or a host's word on a stream that it opened.
    Message = 2,
    /// Bytes of a lane.
    Data = 3,
    /// No more bytes on this lane.
    End = 4,
    /// The receiver of a lane allows so many more bytes (u32).
    Credit = 5,
    /// The sender says nothing more on this stream and wants nothing more from it.
    Close = 6,
    /// Wants a pong with the same payload.
    Ping = 7,
    /// Answer to a ping.
    Pong = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Message,
            3 => Self::Data,
            4 => Self::End,
            5 => Self::Credit,
            6 => Self::Close,
            7 => Self::Ping,
            8 => Self::Pong,
            _ => return None,
        })
    }
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) stream: StreamId,
    pub(crate) kind: Kind,
    pub(crate) lane: u8,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8] = self.kind as u8;
        bytes[9] = self.lane;
        bytes
    }

    /// Reads a header; `limit` is the longest payload that may follow it.
    pub(crate) fn decode(bytes: [u8; HEADER], limit: u32) -> Result<Self, ProtocolError> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, lane] = bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = Kind::from_byte(kind).ok_or(ProtocolError::UnexpectedFrame { kind })?;
        let limit = match kind {
            Kind::Open | Kind::Message => limit,
            Kind::Data => MAX_DATA as u32,
            Kind::End | Kind::Close => 0,
            Kind::Credit => 4,
            Kind::Ping | Kind::Pong => 8,
        };
        if length > limit {
            return Err(ProtocolError::Oversized { length, limit });
        }
        Ok(Self {
            length,
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            kind,
            lane,
        })
    }
}
