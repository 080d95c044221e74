//! Machines.

use std::collections::BTreeMap;
use std::fmt;

use super::{Device, Disk, Image, MachineName, Publish, Ready, VlanId, Volume};
use crate::Bytes;

/// The memory of a machine that asks for none.
pub const DEFAULT_MEMORY: Bytes = Bytes::mebibytes(1024);

/// What runs a machine, as its author asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Kind {
    /// A container, unless the machine asks for what only a VM has.
    #[default]
    Auto,
    /// A virtual machine.
    Vm,
    /// A container.
    Container,
}

/// What a machine is in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunsAs {
    /// A virtual machine.
    Vm,
    /// A container.
    Container,
}

impl fmt::Display for RunsAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vm => "vm",
            Self::Container => "container",
        })
    }
}

impl Kind {
    /// What it comes to for a machine with so many disks, and why, as half a sentence.
    #[must_use]
    pub fn resolve(self, disks: usize) -> (RunsAs, &'static str) {
        match self {
            Self::Vm => (RunsAs::Vm, "the lab file says so"),
            Self::Container => (RunsAs::Container, "the lab file says so"),
            Self::Auto if disks > 0 => (RunsAs::Vm, "it has disks, which only a VM has"),
            Self::Auto => (RunsAs::Container, "it asks for nothing that only a VM has"),
        }
    }
}

/// One machine of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name; `app-2` for the second of `count = 3`.
    pub name: MachineName,
    /// The name in the lab file: `app` for `app-2`.
    pub group: String,
    /// Its place among the lab's names in order, from 1: the last part of its addresses.
    pub number: u8,
    /// What runs it.
    pub kind: Kind,
    /// What it boots.
    pub image: Image,
    /// How much memory it may use.
    pub memory: Bytes,
    /// How many processors it may use.
    pub cpus: u16,
    /// The VLANs it hangs on: the first is `eth1`. None: it has no network.
    pub vlans: Vec<VlanId>,
    /// Disks, for a VM.
    pub disks: Vec<Disk>,
    /// Directories and files of the host.
    pub volumes: Vec<Volume>,
    /// Ports of the host.
    pub publish: Vec<Publish>,
    /// Device nodes of the host, for a container.
    pub devices: Vec<Device>,
    /// The environment of every command that steps and scripts run there.
    pub env: BTreeMap<String, String>,
    /// When it counts as ready.
    pub ready: Ready,
}

impl Machine {
    /// Whether it is a VM or a container, and why, as half a sentence.
    #[must_use]
    pub fn resolve(&self) -> (RunsAs, &'static str) {
        self.kind.resolve(self.disks.len())
    }
}
