//! The handle of a door.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::DoorId;
use crate::port::{Counters, Tally};
use crate::vlan::Segment;

/// A directory that VDE clients connect to: QEMU with `-netdev vde,sock=DIRECTORY`, `vde_plug`,
/// `vde_plug2tap`. Each client has a port of its own at the switch, for as long as it is connected.
/// One directory for each machine and VLAN makes its clients the machine's ports.
///
/// Dropping it sends all clients away, and removes the sockets in the directory; the directory too,
/// if it was made here.
pub struct VdeDoor {
    pub(crate) directory: Arc<Path>,
    pub(crate) id: DoorId,
    pub(crate) tally: Arc<Tally>,
    pub(crate) segment: Arc<Segment>,
}

impl VdeDoor {
    /// The directory, as an absolute path without links.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pulls the cables of all clients (`false`), those to come included, or plugs them in again.
    /// When this returns, it is so. The clients do not notice, only nothing passes.
    pub fn set_up(&self, up: bool) {
        self.segment.set_door_up(self.id, up);
    }

    /// What has passed the ports of all clients so far, and what has not.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }
}

impl fmt::Debug for VdeDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VdeDoor")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Drop for VdeDoor {
    fn drop(&mut self) {
        self.segment.close(self.id);
    }
}
