//! What the tests may call the machines.

use std::collections::BTreeMap;

use crate::types::{Machine, MachineName};

/// The machines, and the names in the file that stand for them.
pub(super) struct Machines {
    /// Sorted by name.
    pub(super) all: Vec<Machine>,
    /// For each name in the file its machines; none where the machine itself is wrong.
    pub(super) groups: BTreeMap<String, Vec<MachineName>>,
}

impl Machines {
    /// The machines that a name stands for, if it stands for anything.
    pub(super) fn find(&self, name: &str) -> Option<Vec<MachineName>> {
        let exact = self
            .all
            .iter()
            .find(|machine| machine.name.as_str() == name);
        exact
            .map(|machine| vec![machine.name.clone()])
            .or_else(|| self.groups.get(name).cloned())
    }

    /// Whether something by this name is in the file, but too wrong to be a machine.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.groups.iter().any(|(group, members)| {
            members.is_empty() && (group == name || name.starts_with(&format!("{group}-")))
        })
    }
}
