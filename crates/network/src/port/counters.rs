//! What passed a port, and what did not.

use std::sync::atomic::{AtomicU64, Ordering};

/// What passed a port in one direction. A frame that a container's kernel handed over uncut, up to
/// 64 KiB, counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
}

/// Frames that were dropped at a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// From the machine: no proper Ethernet frame.
    pub malformed: u64,
    /// From the machine, while the port was down.
    pub port_down: u64,
    /// To the machine: longer than the port's MTU.
    pub too_long: u64,
    /// To the machine, while too much waited for it already.
    pub no_room: u64,
    /// To the machine, while none was connected.
    pub nobody: u64,
    /// To the machine: the kernel would not take it, or an offload could not be finished.
    pub refused: u64,
}

/// The counters of a port at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// From the machine to the switch.
    pub received: Traffic,
    /// From the switch to the machine.
    pub sent: Traffic,
    /// What was dropped.
    pub drops: Drops,
}

/// Counters that one thread counts up and others read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    received: (AtomicU64, AtomicU64),
    sent: (AtomicU64, AtomicU64),
    drops: [AtomicU64; Count::KINDS],
}

/// Why a frame was dropped: the fields of [`Drops`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Malformed,
    PortDown,
    TooLong,
    NoRoom,
    Nobody,
    Refused,
}

impl Count {
    const KINDS: usize = 6;
}

impl Tally {
    pub fn received(&self, bytes: usize) {
        count(&self.received, bytes);
    }

    pub fn sent(&self, bytes: usize) {
        count(&self.sent, bytes);
    }

    /// Returns how many were dropped for this reason before.
    pub fn dropped(&self, why: Count, frames: usize) -> u64 {
        self.drops[why as usize].fetch_add(frames as u64, Ordering::Relaxed)
    }

    pub fn read(&self) -> Counters {
        let traffic = |(frames, bytes): &(AtomicU64, AtomicU64)| Traffic {
            frames: frames.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        };
        let drops = |why: Count| self.drops[why as usize].load(Ordering::Relaxed);
        Counters {
            received: traffic(&self.received),
            sent: traffic(&self.sent),
            drops: Drops {
                malformed: drops(Count::Malformed),
                port_down: drops(Count::PortDown),
                too_long: drops(Count::TooLong),
                no_room: drops(Count::NoRoom),
                nobody: drops(Count::Nobody),
                refused: drops(Count::Refused),
            },
        }
    }
}

fn count((frames, total): &(AtomicU64, AtomicU64), bytes: usize) {
    frames.fetch_add(1, Ordering::Relaxed);
    total.fetch_add(bytes as u64, Ordering::Relaxed);
}
