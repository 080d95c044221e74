//! From a lab to what its machines are made of. Nothing here touches the host.

mod identity;
mod warm;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use machinist_image as image;
use machinist_lab::{self as lab, ContainerLimits, DiskContents, Gpu, Lab, RunsAs};
use machinist_machine as machine;
use machinist_machine::devices::{Asked, Devices};
use machinist_network::addresses::{self, MachineNumber, MachineNumberError};

use identity::{hosts, machine_id, nics};
use warm::{first_of_several, warm};

/// How long an agent may take to answer. Emulated VMs on a loaded host are slow.
const VM_START: Duration = Duration::from_secs(300);
const CONTAINER_START: Duration = Duration::from_secs(60);

/// All of a machine but its image, which has to be built first.
#[derive(Debug, Clone)]
pub(crate) struct MachinePlan {
    pub(crate) name: String,
    pub(crate) runs_as: RunsAs,
    /// Why it is a VM and not the container that it would be elsewhere.
    pub(crate) moved: Option<String>,
    /// The image as the lab names it.
    pub(crate) image: lab::Image,
    pub(crate) want: image::Want,
    pub(crate) nics: Vec<machine::NicSpec>,
    hosts: Vec<machine::HostLine>,
    machine_id: String,
    memory: u64,
    cpus: u16,
    disks: Vec<machine::Disk>,
    /// What of the host's devices it asks for.
    pub(crate) asked: Asked,
    /// What it gets for that, once somebody has looked.
    pub(crate) devices: Devices,
    volumes: Vec<machine::Volume>,
    publish: Vec<machine::Publish>,
    start_within: Duration,
    warm: machine::Warm,
    uplink: bool,
    /// What a checkpoint makes of it, where it is a container.
    pub(crate) checkpoint: lab::Checkpoint,
    /// Whether it shares a snapshot with others of its group.
    pub(crate) group: Option<String>,
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
    /// What keeps containers from running here.
    pub(crate) containers: &'a ContainerLimits,
    /// Whether VMs may be restored from snapshots.
    pub(crate) warm: bool,
    /// The agent is the only thing that starts in a VM.
    pub(crate) agent_only: bool,
    /// VMs reach what the host reaches.
    pub(crate) uplink: bool,
    /// VMs leave alone the disks that keep what is written until they are ready.
    pub(crate) late_disks: bool,
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
    let (runs_as, because) = machine.resolve_here(circumstances.containers);
    // Of itself it would have been something else.
    let moved = (machine.resolve().0 != runs_as).then_some(because);
    let within = match runs_as {
        RunsAs::Vm => VM_START,
        RunsAs::Container => CONTAINER_START,
    };
    Ok(MachinePlan {
        name: machine.name.as_str().to_owned(),
        runs_as,
        moved,
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
            .map(|disk| plan_disk(disk, circumstances))
            .collect(),
        asked: asked(machine),
        devices: Devices::default(),
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
        warm: match runs_as {
            RunsAs::Vm => warm(lab, machine, circumstances)?,
            RunsAs::Container => machine::Warm::default(),
        },
        uplink: circumstances.uplink,
        checkpoint: machine.checkpoint,
        group: first_of_several(lab, machine).map(|_| machine.group.clone()),
    })
}

/// What of the host's devices a machine asks for.
#[must_use]
pub fn asked(machine: &lab::Machine) -> Asked {
    let nodes = machine.devices.iter().map(|device| device.0.clone());
    let cdi = machine.cdi.iter().cloned();
    Asked {
        nodes: nodes.collect(),
        cdi: cdi.map(|name| (name.kind, name.device)).collect(),
        nvidia: machine.gpu == Some(Gpu::Nvidia),
    }
}

fn plan_disk(disk: &lab::Disk, circumstances: Circumstances<'_>) -> machine::Disk {
    match &disk.contents {
        DiskContents::Empty(size) => machine::Disk::Scratch { size: size.0 },
        DiskContents::File(path) => machine::Disk::File {
            path: circumstances.base.join(path),
            access: if disk.read_only {
                machine::DiskAccess::ReadOnly
            } else if circumstances.late_disks {
                machine::DiskAccess::WriteLater
            } else {
                machine::DiskAccess::Write
            },
        },
    }
}

impl MachinePlan {
    /// The plan of a machine that is made of this one, with a name, a number, addresses and an id of
    /// its own. What this one publishes at a port of its own choice, the clone does not.
    pub(crate) fn of_clone(&self, session: &str, name: &str, number: MachineNumber) -> Self {
        let mut plan = self.clone();
        name.clone_into(&mut plan.name);
        plan.machine_id = machine_id(session, name);
        for nic in &mut plan.nics {
            nic.mac = addresses::mac(nic.vlan, number).0;
            nic.addresses = addresses::both(nic.vlan, number).to_vec();
        }
        plan.publish.retain(|publish| publish.host.port() == 0);
        // Where it is switched off and starts again, it boots.
        plan.warm = machine::Warm::default();
        plan.group = None;
        plan
    }

    /// What others know it by.
    pub(crate) fn own_lines(&self) -> Vec<machine::HostLine> {
        let Some(nic) = self.nics.first() else {
            return Vec::new();
        };
        let line = |(address, _): &(IpAddr, u8)| machine::HostLine {
            address: *address,
            names: vec![self.name.clone()],
        };
        nic.addresses.iter().map(line).collect()
    }

    /// Lets it know others.
    pub(crate) fn knows(&mut self, lines: &[machine::HostLine]) {
        self.hosts.extend(lines.iter().cloned());
    }

    /// Its addresses with their prefix lengths, as text.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nics
            .iter()
            .flat_map(|nic| &nic.addresses)
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect()
    }

    /// Its ports that are published, as they are numbered inside.
    pub(crate) fn guest_ports(&self) -> impl Iterator<Item = u16> {
        self.publish.iter().map(|publish| publish.guest)
    }

    /// What it writes to that no checkpoint of a container has: folders and files of the host.
    pub(crate) fn written_outside(&self) -> impl Iterator<Item = &machine::Volume> {
        self.volumes.iter().filter(|volume| volume.writable)
    }

    /// Whether it may be restored from a snapshot.
    pub(crate) fn is_warm(&self) -> bool {
        matches!(self.warm, machine::Warm::At { .. })
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
            uplink: self.uplink,
            hosts: self.hosts.clone(),
            machine_id: self.machine_id.clone(),
            volumes: self.volumes.clone(),
            publish: self.publish.clone(),
            start_within: self.start_within,
            warm: self.warm.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = r#"
[vlan.1]
[vlan.2]
[machine.app]
kind = "container"
image = "host"
vlans = [2, 1]
count = 2
volumes = ["data:/data:rw"]
publish = ["80"]
[machine.db]
image = "debian:bookworm"
packages = ["postgresql"]
vlans = [2]
disks = [{ size = "2G" }, { path = "disk.img", read_only = true }]
[machine.lone]
image = "host"
vlans = []
"#;

    /// Nothing is special.
    pub(super) fn usual() -> Circumstances<'static> {
        Circumstances {
            session: "abcdefgh",
            base: Path::new("/lab"),
            timeout_factor: 1.0,
            containers: &ContainerLimits {
                any: None,
                host_image: None,
            },
            warm: true,
            agent_only: false,
            uplink: false,
            late_disks: false,
        }
    }

    pub(super) fn planned(wanted: &[&str]) -> Vec<MachinePlan> {
        let lab = Lab::parse_toml(LAB, "lab.toml").unwrap();
        plan(&lab, wanted, usual()).unwrap()
    }

    #[test]
    fn kinds_images_and_paths() {
        let some = planned(&["app-1", "db"]);
        assert_eq!(some.len(), 2);
        let (app, db) = (&some[0], &some[1]);
        assert_eq!((app.runs_as, db.runs_as), (RunsAs::Container, RunsAs::Vm));
        assert_eq!(app.want, image::Want::Container);
        let want = image::Want::Vm {
            shared_folders: false,
        };
        assert_eq!(db.want, want);
        assert_eq!(db.image.packages, ["postgresql"]);
        assert_eq!(app.volumes[0].source, Path::new("/lab/data"));
        assert_eq!(app.publish[0].host.port(), 0);
        assert_eq!(db.disks[0], machine::Disk::Scratch { size: 2 << 30 });
        let path = "/lab/disk.img".into();
        let access = machine::DiskAccess::ReadOnly;
        assert_eq!(db.disks[1], machine::Disk::File { path, access });
        assert_eq!(app.start_within, CONTAINER_START);
        // A machine that is left out keeps its place: addresses do not depend on the test.
        assert_eq!(planned(&["db"])[0].addresses()[0], "192.168.2.3/24");
    }

    #[test]
    fn a_machine_that_may_be_either_goes_where_it_can() {
        let lab = Lab::parse_toml("machine.a.image = 'host'", "lab.toml").unwrap();
        let planned = |limits: &ContainerLimits| {
            let slow = Circumstances {
                containers: limits,
                timeout_factor: 2.0,
                ..usual()
            };
            plan(&lab, &[], slow).unwrap().remove(0)
        };
        let here = planned(&ContainerLimits::default());
        assert_eq!((here.runs_as, here.moved), (RunsAs::Container, None));
        assert_eq!(here.start_within, CONTAINER_START * 2);
        let any = Some("no ids".to_owned());
        let limits = ContainerLimits {
            any: any.clone(),
            host_image: None,
        };
        let elsewhere = planned(&limits);
        assert_eq!((elsewhere.runs_as, elsewhere.moved), (RunsAs::Vm, any));
        assert!(matches!(elsewhere.want, image::Want::Vm { .. }));
    }
}
