//! What machines cost in memory. Nothing here looks at the host.
//!
//! Measured with Debian guests under QEMU 10 without hardware virtualization (`docs/snapshots.md`
//! has the numbers): a VM that has booted holds what it has touched of its memory and QEMU's own 60
//! to 200 MB, mostly translated code. A restored one shares the snapshot's pages and copies those
//! that it writes to. A container is a few processes of the host.

use std::collections::{BTreeMap, BTreeSet};

use machinist_lab::{ContainerLimits, Lab, Machine, RunsAs};

/// What QEMU takes beside the guest's memory.
const QEMU: u64 = 128 << 20;
/// What a container takes: its systemd and a few services.
const CONTAINER: u64 = 64 << 20;
/// Of a restored VM's memory one part in so many is counted as its own; it may come to write to
/// more, and to all of it.
const WRITTEN: u64 = 4;

/// How a machine costs what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// While it boots, or if it is one that boots each time.
    whole: u64,
    /// Once it was restored, if it ever is.
    own: u64,
    /// Restored from whatever it was at some moment.
    restored: u64,
}

impl Cost {
    fn of(machine: &Machine, runs_as: RunsAs, warm: bool) -> Self {
        match runs_as {
            RunsAs::Container => {
                let some = CONTAINER.min(machine.memory.0);
                Self {
                    whole: some,
                    own: some,
                    restored: some,
                }
            }
            RunsAs::Vm => {
                let whole = machine.memory.0.saturating_add(QEMU);
                let restored = machine.memory.0 / WRITTEN + QEMU;
                let is_warm = warm && machine.cold().is_none();
                Self {
                    whole,
                    own: if is_warm { restored } else { whole },
                    restored,
                }
            }
        }
    }
}

/// What the machines of a session cost, as far as they have been seen to start.
#[derive(Debug)]
pub(crate) struct Costs {
    machines: BTreeMap<String, (Cost, String)>,
    /// Groups whose first machine has not been seen to be restored: one may boot to be saved.
    booting: BTreeSet<String>,
    /// Machines that boot although they might have been restored.
    cold: BTreeSet<String>,
    /// What their spares cost.
    spares: u64,
}

impl Costs {
    /// What these machines cost before anything is known: of each group one boots to be saved, and
    /// all are restored.
    pub(crate) fn of<'a>(
        machines: impl Iterator<Item = &'a Machine>,
        limits: &ContainerLimits,
        warm: bool,
    ) -> Self {
        let machines: BTreeMap<_, _> = machines
            .map(|machine| {
                let cost = Cost::of(machine, machine.resolve_here(limits).0, warm);
                (
                    machine.name.as_str().to_owned(),
                    (cost, machine.group.clone()),
                )
            })
            .collect();
        let groups = machines.values().map(|(_, group)| group.clone());
        Self {
            booting: groups.collect(),
            cold: BTreeSet::new(),
            spares: 0,
            machines,
        }
    }

    /// Nothing.
    pub(crate) fn none() -> Self {
        Self {
            machines: BTreeMap::new(),
            booting: BTreeSet::new(),
            cold: BTreeSet::new(),
            spares: 0,
        }
    }

    /// A machine was restored. Its group's snapshot is there, then.
    pub(crate) fn restored(&mut self, machine: &str) {
        if let Some((_, group)) = self.machines.get(machine) {
            self.booting.remove(group);
            self.cold.remove(machine);
        }
    }

    /// A machine boots, and stays one that has booted.
    pub(crate) fn boots(&mut self, machine: &str) {
        if self.machines.contains_key(machine) {
            self.cold.insert(machine.to_owned());
        }
    }

    /// What a spare of a machine costs: it was restored, whatever the machine was.
    pub(crate) fn of_spare(&self, machine: &str) -> Option<u64> {
        let (cost, _) = self.machines.get(machine)?;
        Some(cost.restored)
    }

    /// There are spares that cost so much more.
    pub(crate) fn begin_spare(&mut self, bytes: u64) {
        self.spares += bytes;
    }

    /// There are spares no more that cost so much.
    pub(crate) fn end_spare(&mut self, bytes: u64) {
        self.spares -= bytes;
    }

    /// In bytes, all together.
    pub(crate) fn sum(&self) -> u64 {
        let mut booting = self.booting.clone();
        let each = self.machines.iter().map(|(name, (cost, group))| {
            // The first of the group stands for the one that boots to be saved.
            if self.cold.contains(name) || booting.remove(group) {
                cost.whole
            } else {
                cost.own
            }
        });
        each.fold(self.spares, u64::saturating_add)
    }
}

/// How many bytes of memory machines of a lab need to start; all of them where `wanted` names none.
/// What was saved in earlier runs makes no difference: of each sort of machine one may have to boot.
#[must_use]
pub fn memory_needed(lab: &Lab, wanted: &[&str], limits: &ContainerLimits, warm: bool) -> u64 {
    let machines = lab.machines.iter();
    let wanted = |machine: &&Machine| wanted.is_empty() || wanted.contains(&machine.name.as_str());
    Costs::of(machines.filter(wanted), limits, warm).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = r#"
[machine.app]
kind = "vm"
image = "dir:x"
memory = "1G"
count = 3
[machine.db]
kind = "vm"
image = "dir:x"
memory = "2G"
snapshot = false
[machine.web]
kind = "container"
image = "dir:x"
"#;
    const MIB: u64 = 1 << 20;

    fn lab() -> Lab {
        Lab::parse_toml(LAB, "lab.toml").unwrap()
    }

    fn costs(warm: bool) -> Costs {
        Costs::of(lab().machines.iter(), &ContainerLimits::default(), warm)
    }

    #[test]
    fn of_each_group_one_boots() {
        let (app, own, db) = (1152 * MIB, 384 * MIB, 2176 * MIB);
        assert_eq!(costs(true).sum(), app + 2 * own + db + CONTAINER);
        assert_eq!(costs(false).sum(), 3 * app + db + CONTAINER);
        let needed =
            |wanted: &[&str]| memory_needed(&lab(), wanted, &ContainerLimits::default(), true);
        assert_eq!(needed(&[]), costs(true).sum());
        assert_eq!(needed(&["app-2", "app-3"]), app + own);
    }

    #[test]
    fn what_is_seen_counts() {
        let (app, own, db) = (1152 * MIB, 384 * MIB, 2176 * MIB);
        let mut costs = costs(true);
        costs.restored("app-2");
        assert_eq!(costs.sum(), 3 * own + db + CONTAINER);
        // Its snapshot was of no use.
        costs.boots("app-3");
        assert_eq!(costs.sum(), app + 2 * own + db + CONTAINER);
        costs.restored("app-3");
        let spare = costs.of_spare("db").unwrap();
        assert_eq!(spare, (512 + 128) * MIB);
        costs.begin_spare(spare);
        assert_eq!(costs.sum(), 3 * own + db + CONTAINER + spare);
        costs.end_spare(spare);
        costs.boots("unknown");
        assert_eq!(costs.sum(), 3 * own + db + CONTAINER);
        assert_eq!(Costs::none().sum(), 0);
    }
}
