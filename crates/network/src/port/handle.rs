//! The handle of a port.

use std::fmt;
use std::sync::Arc;

use super::{Counters, Tally};
use crate::switch::PortId;
use crate::vlan::Segment;

/// A machine's place at the switch of a VLAN. Dropping it detaches the machine: the socket is
/// removed, or the container's interface deleted.
pub struct Port {
    pub(crate) name: String,
    pub(crate) id: PortId,
    pub(crate) tally: Arc<Tally>,
    pub(crate) segment: Arc<Segment>,
    /// The outer end of a container's interface.
    pub(crate) interface: Option<u32>,
}

impl Port {
    /// Its name, as it was given when the machine was attached.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pulls the machine's cable (`false`) or plugs it in again. When this returns, it is so. The
    /// machine does not notice: its interface stays up, only nothing passes.
    pub fn set_up(&self, up: bool) {
        self.segment.set_up(self.id, up);
    }

    /// What has passed so far, and what has not.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.segment.detach(self.id, self.interface);
    }
}
