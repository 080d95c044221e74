//! From a lab to what its machines are made of. Nothing here touches the host.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machinist_image as image;
use machinist_lab::{self as lab, DiskContents, Lab, RunsAs};
use machinist_machine as machine;
use machinist_network::addresses::{self, MachineNumber, MachineNumberError};

/// How long an agent may take to answer. Emulated VMs on a loaded host are slow.
const VM_START: Duration = Duration::from_secs(300);
const CONTAINER_START: Duration = Duration::from_secs(60);

/// All of a machine but its image, which has to be built first.
#[derive(Debug, Clone)]
pub(crate) struct MachinePlan {
    pub(crate) name: String,
    pub(crate) runs_as: RunsAs,
    /// The image as the lab names it.
    pub(crate) image: lab::Image,
    pub(crate) want: image::Want,
    pub(crate) nics: Vec<machine::NicSpec>,
    hosts: Vec<machine::HostLine>,
    machine_id: String,
    memory: u64,
    cpus: u16,
    disks: Vec<machine::Disk>,
    devices: Vec<PathBuf>,
    volumes: Vec<machine::Volume>,
    publish: Vec<machine::Publish>,
    start_within: Duration,
}

/// What a lab cannot say about itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// The session's id.
    pub(crate) session: &'a str,
    /// What relative paths are relative to; absolute.
    pub(crate) base: &'a Path,
    /// All timeouts are multiplied by it.
    pub(crate) timeout_factor: f64,
}

/// Plans those machines of a lab that `wanted` names; all where it is empty. Sorted by name.
pub(crate) fn plan(
    lab: &Lab,
    wanted: &[&str],
    circumstances: Circumstances<'_>,
) -> Result<Vec<MachinePlan>, MachineNumberError> {
    lab.machines
        .iter()
        .filter(|machine| wanted.is_empty() || wanted.contains(&machine.name.as_str()))
        .map(|machine| plan_machine(lab, machine, circumstances))
        .collect()
}

fn plan_machine(
    lab: &Lab,
    machine: &lab::Machine,
    circumstances: Circumstances<'_>,
) -> Result<MachinePlan, MachineNumberError> {
    let base = circumstances.base;
    let (runs_as, _) = machine.resolve();
    let within = match runs_as {
        RunsAs::Vm => VM_START,
        RunsAs::Container => CONTAINER_START,
    };
    Ok(MachinePlan {
        name: machine.name.as_str().to_owned(),
        runs_as,
        image: machine.image.clone(),
        want: match runs_as {
            RunsAs::Container => image::Want::Container,
            RunsAs::Vm => image::Want::Vm {
                shared_folders: !machine.volumes.is_empty(),
            },
        },
        nics: nics(machine)?,
        hosts: hosts(lab, machine)?,
        machine_id: machine_id(circumstances.session, machine.name.as_str()),
        memory: machine.memory.0,
        cpus: machine.cpus,
        disks: machine
            .disks
            .iter()
            .map(|disk| plan_disk(disk, base))
            .collect(),
        devices: machine
            .devices
            .iter()
            .map(|device| device.0.clone())
            .collect(),
        volumes: machine
            .volumes
            .iter()
            .map(|volume| machine::Volume {
                source: base.join(&volume.source),
                target: volume.target.clone(),
                writable: volume.writable,
            })
            .collect(),
        publish: machine
            .publish
            .iter()
            .map(|publish| machine::Publish {
                host: SocketAddr::new(publish.address, publish.host.unwrap_or(0)),
                guest: publish.guest,
            })
            .collect(),
        start_within: within.mul_f64(circumstances.timeout_factor.clamp(0.01, 1000.0)),
    })
}

fn plan_disk(disk: &lab::Disk, base: &Path) -> machine::Disk {
    match &disk.contents {
        DiskContents::Empty(size) => machine::Disk::Scratch { size: size.0 },
        DiskContents::File(path) => machine::Disk::File {
            path: base.join(path),
            access: if disk.read_only {
                machine::DiskAccess::ReadOnly
            } else {
                machine::DiskAccess::Write
            },
        },
    }
}

fn number(machine: &lab::Machine) -> Result<MachineNumber, MachineNumberError> {
    MachineNumber::at(usize::from(machine.number).saturating_sub(1))
}

fn nics(machine: &lab::Machine) -> Result<Vec<machine::NicSpec>, MachineNumberError> {
    let number = number(machine)?;
    let nic = |(position, vlan): (usize, &lab::VlanId)| machine::NicSpec {
        vlan: vlan.get(),
        name: addresses::interface(position),
        mac: addresses::mac(vlan.get(), number).0,
        addresses: addresses::both(vlan.get(), number).to_vec(),
    };
    Ok(machine.vlans.iter().enumerate().map(nic).collect())
}

/// Everybody's names, at their addresses on their first VLAN. A machine without a network knows
/// itself by a loopback address, as on Debian.
fn hosts(lab: &Lab, own: &lab::Machine) -> Result<Vec<machine::HostLine>, MachineNumberError> {
    let mut lines = Vec::new();
    for machine in &lab.machines {
        let names = vec![machine.name.as_str().to_owned()];
        let number = number(machine)?;
        if let Some(vlan) = machine.vlans.first() {
            for (address, _) in addresses::both(vlan.get(), number) {
                let names = names.clone();
                lines.push(machine::HostLine { address, names });
            }
        } else if machine.name == own.name {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));
            lines.push(machine::HostLine { address, names });
        }
    }
    Ok(lines)
}

/// 32 hexadecimal digits that no other machine has, in this session or another.
fn machine_id(session: &str, name: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, session, name).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

impl MachinePlan {
    /// Its addresses with their prefix lengths, as text.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nics
            .iter()
            .flat_map(|nic| &nic.addresses)
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect()
    }

    /// The whole machine.
    pub(crate) fn spec(
        &self,
        image: image::Image,
        accel: machine::Accel,
        boot: machine::Boot,
    ) -> machine::MachineSpec {
        machine::MachineSpec {
            name: self.name.clone(),
            image,
            kind: match self.runs_as {
                RunsAs::Vm => machine::Kind::Vm {
                    accel,
                    disks: self.disks.clone(),
                },
                RunsAs::Container => machine::Kind::Container {
                    devices: self.devices.clone(),
                },
            },
            boot,
            memory: self.memory,
            cpus: self.cpus,
            nics: self.nics.clone(),
            hosts: self.hosts.clone(),
            machine_id: self.machine_id.clone(),
            volumes: self.volumes.clone(),
            publish: self.publish.clone(),
            start_within: self.start_within,
        }
    }
}
