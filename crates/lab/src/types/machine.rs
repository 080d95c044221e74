//! Machines.

use std::collections::BTreeMap;
use std::fmt;

use super::{
    CdiName, Checkpoint, ContainerLimits, Device, Disk, DiskContents, Gpu, Image, MachineName,
    Publish, Ready, Source, VlanId, Volume,
};
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
    /// Devices that the host describes by the Container Device Interface, for a container.
    pub cdi: Vec<CdiName>,
    /// The host's graphics processors of one vendor, for a container.
    pub gpu: Option<Gpu>,
    /// The environment of every command that steps and scripts run there.
    pub env: BTreeMap<String, String>,
    /// When it counts as ready; and, of a VM, when its snapshot is made.
    pub ready: Ready,
    /// Whether it may be restored from a snapshot instead of booting, if it is a VM.
    pub snapshot: bool,
    /// What a checkpoint makes of it, if it is a container.
    pub checkpoint: Checkpoint,
}

impl Machine {
    /// Whether it is a VM or a container, and why, as half a sentence.
    #[must_use]
    pub fn resolve(&self) -> (RunsAs, String) {
        let as_asked = || "the lab file says so".to_owned();
        match self.kind {
            Kind::Vm => (RunsAs::Vm, as_asked()),
            Kind::Container => (RunsAs::Container, as_asked()),
            Kind::Auto => match (self.only_container(), self.only_vm()) {
                (Some(reason), _) => (RunsAs::Container, reason),
                (None, Some(reason)) => (RunsAs::Vm, reason),
                (None, None) => {
                    let reason = "it asks for nothing that only a VM has".to_owned();
                    (RunsAs::Container, reason)
                }
            },
        }
    }

    /// The same on a host that has limits: what may be either is a VM where it cannot be a container.
    #[must_use]
    pub fn resolve_here(&self, limits: &ContainerLimits) -> (RunsAs, String) {
        let (runs_as, reason) = self.resolve();
        match limits.against(self) {
            Some(limit) if runs_as == RunsAs::Container && self.may_move() => {
                (RunsAs::Vm, limit.to_owned())
            }
            _ => (runs_as, reason),
        }
    }

    /// Why it boots each time where a VM could be restored from a snapshot, as half a sentence; none
    /// if nothing speaks against that.
    #[must_use]
    pub fn cold(&self) -> Option<String> {
        let because = self.cold_but_for_disks();
        because.or_else(|| {
            let mut disks = self.disks.iter();
            let written = disks.find_map(|disk| match &disk.contents {
                DiskContents::File(path) if !disk.read_only => Some(path),
                _ => None,
            })?;
            let written = written.display();
            Some(format!("its disk {written} keeps what is written"))
        })
    }

    /// The same where it leaves alone the disks that keep what is written until it is ready.
    #[must_use]
    pub fn cold_but_for_disks(&self) -> Option<String> {
        if !self.snapshot {
            return Some("the lab file says `snapshot = false`".to_owned());
        }
        // What such a machine has read while it booted may be different by now.
        if self.image.source == Source::Host {
            return Some("its image is this host's own root".to_owned());
        }
        if !self.volumes.is_empty() {
            return Some("it sees a directory of the host".to_owned());
        }
        None
    }

    /// Whether it may be either kind, so that a host's limits decide.
    fn may_move(&self) -> bool {
        self.kind == Kind::Auto && self.only_container().is_none()
    }

    /// Why no VM will do.
    fn only_container(&self) -> Option<String> {
        let devices = !self.devices.is_empty() || !self.cdi.is_empty() || self.gpu.is_some();
        devices.then(|| "it has devices of the host, which only a container has".to_owned())
    }

    /// Why no container will do.
    fn only_vm(&self) -> Option<String> {
        if !self.disks.is_empty() {
            return Some("it has disks, which only a VM has".to_owned());
        }
        let mut packages = self.image.packages.iter();
        let kernel = packages.find(|package| package.starts_with("linux-image-"))?;
        Some(format!(
            "it brings a kernel of its own, {kernel}, which only a VM boots"
        ))
    }
}
