//! A VLAN that stands still, for a checkpoint of the machines on it.
//!
//! A frame is at any moment in one machine, or on its way. So that none is in both or in neither,
//! the order is: the VLAN stands still ([`Vlan::hold`]), with the machines reading what they were
//! sent; the machines stand still; then what is on its way is told ([`Still::frames`]), including
//! what machines had sent and nobody had read. The machines that are saved now and these frames
//! belong together: [`Still::thaw`] of a later standstill gives the frames to ports of the same
//! names.

use std::sync::Arc;

use crate::vlan::{Segment, Vlan};

/// A frame on its way to a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The name of the port that it goes out at.
    pub port: String,
    /// The frame, without any header of ours.
    pub frame: Vec<u8>,
}

/// A VLAN that stands still. It goes on when this is dropped.
#[derive(Debug)]
pub struct Still {
    segment: Arc<Segment>,
}

impl Vlan {
    /// Lets the VLAN stand still. Machines may be attached and detached meanwhile. Blocks for some
    /// milliseconds, until virtual machines have read what they were sent.
    #[must_use]
    pub fn hold(&self) -> Still {
        self.segment.hold();
        Still {
            segment: Arc::clone(&self.segment),
        }
    }
}

impl Still {
    /// The frames that are on their way to virtual machines, in order, once these stand still, too.
    /// They stay on their way.
    #[must_use]
    pub fn frames(&self) -> Vec<InFlight> {
        self.segment.collect()
    }

    /// Lets the VLAN go on, with `frames` put on their way besides those that are on it. Those to
    /// ports that are not there are lost.
    pub fn thaw(self, frames: Vec<InFlight>) {
        self.segment.thaw(frames);
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.segment.thaw(Vec::new());
    }
}

#[cfg(test)]
mod tests;
