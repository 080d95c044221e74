//! The book-keeping of one stream: credit and ends of its lanes.

use crate::frame::MAX_DATA;

/// Number of a stream, chosen by the host, never used twice on one channel.
pub type StreamId = u32;

/// How many bytes a sender may be ahead of its receiver, on each lane.
pub const WINDOW: u32 = 256 * 1024;

/// Credit is given back in portions of this size, not for every read.
const PORTION: u32 = WINDOW / 4;

/// How many lanes a stream has in each direction.
pub const LANES: usize = 2;

/// One of the byte streams in one direction of a stream. A command's standard input is the main
/// lane towards the agent; its standard output the main lane towards the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Standard input, standard output, the bytes of a connection, a file tree.
    Main = 0,
    /// Standard error.
    Error = 1,
}

impl Lane {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Main),
            1 => Some(Self::Error),
            _ => None,
        }
    }
}

/// What this end may send on a lane.
#[derive(Debug)]
pub(crate) struct Outgoing {
    credit: u32,
    pub(crate) ended: bool,
}

impl Outgoing {
    /// How many bytes of `wanted` may go into one frame now.
    pub(crate) fn allowance(&self, wanted: usize) -> usize {
        if self.ended {
            return 0;
        }
        wanted.min(self.credit as usize).min(MAX_DATA)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u32);
    }

    /// More credit; false where that is more than there ever can be.
    pub(crate) fn allow(&mut self, bytes: u32) -> bool {
        self.credit = self.credit.saturating_add(bytes);
        self.credit <= WINDOW
    }
}

/// What this end may receive on a lane.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// How many bytes the other end may still send.
    window: u32,
    /// Bytes that were used up here, and not yet given back as credit.
    used: u32,
    pub(crate) ended: bool,
}

impl Incoming {
    /// Bytes arrived; false where they were not allowed.
    pub(crate) fn received(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u32;
        if self.ended || bytes > self.window {
            return false;
        }
        self.window -= bytes;
        true
    }

    /// Bytes were used up; the credit that should now be given back, if any.
    pub(crate) fn consumed(&mut self, bytes: usize) -> Option<u32> {
        self.used += bytes as u32;
        if self.used < PORTION || self.ended {
            return None;
        }
        let credit = self.used;
        self.used = 0;
        self.window += credit;
        Some(credit)
    }
}

/// One stream, as one end sees it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) outgoing: [Outgoing; LANES],
    pub(crate) incoming: [Incoming; LANES],
    /// This end has closed it; what still arrives is dropped until the other end closes too.
    pub(crate) closed: bool,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self {
            outgoing: std::array::from_fn(|_| Outgoing {
                credit: WINDOW,
                ended: false,
            }),
            incoming: std::array::from_fn(|_| Incoming {
                window: WINDOW,
                used: 0,
                ended: false,
            }),
            closed: false,
        }
    }
}
