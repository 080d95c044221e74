//! The lab as a whole.

use std::collections::BTreeMap;

use super::{Image, Machine, Test, Vlan, VlanId};

/// The most machines of a lab: each VLAN has addresses for so many.
pub const MAX_MACHINES: usize = 250;

/// The machines, networks and tests that a lab file describes, checked and resolved.
///
/// Nothing is known yet of this host: paths are as written, and those that are relative are
/// relative to the lab file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// All machines, `count` expanded, sorted by name. Machine `i` has the number `i + 1`.
    pub machines: Vec<Machine>,
    /// Every VLAN that the file declares or a machine hangs on.
    pub vlans: BTreeMap<VlanId, Vlan>,
    /// The images that have names of their own.
    pub images: BTreeMap<String, Image>,
    /// The tests, in the order of the file.
    pub tests: Vec<Test>,
}

impl Lab {
    /// The machine with this name.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines
            .iter()
            .find(|machine| machine.name.as_str() == name)
    }
}
