//! From a lab to what its machines are made of. Nothing here touches the host.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use machinist_image as image;
use machinist_lab::{self as lab, ContainerLimits, DiskContents, Gpu, Lab, RunsAs};
use machinist_machine as machine;
use machinist_machine::devices::{Asked, Devices};
use machinist_network::addresses::{self, MachineNumber, MachineNumberError};

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

/// Whether a VM may be restored, and who it is in its snapshot.
fn warm(
    lab: &Lab,
    machine: &lab::Machine,
    circumstances: Circumstances<'_>,
) -> Result<machine::Warm, MachineNumberError> {
    if !circumstances.warm {
        return Ok(machine::Warm::default());
    }
    let because = if circumstances.late_disks {
        machine.cold_but_for_disks()
    } else {
        machine.cold()
    };
    if because.is_some() {
        return Ok(machine::Warm::Cold { because });
    }
    let ready = match &machine.ready {
        _ if circumstances.agent_only => machine::ReadyPoint::Agent,
        lab::Ready::Agent => machine::ReadyPoint::Agent,
        lab::Ready::System => machine::ReadyPoint::System,
        lab::Ready::Unit(unit) => machine::ReadyPoint::Unit(unit.clone()),
        lab::Ready::Command(command) => machine::ReadyPoint::Command(command.clone()),
    };
    let first = first_of_several(lab, machine).unwrap_or(machine);
    let group = lab.machines.iter().filter(|it| it.group == machine.group);
    let mut golden = golden(lab, first, group.count())?;
    if circumstances.late_disks {
        // What it is, is on its disks: those that are alike share a snapshot, whatever they are called.
        rename(&mut golden, "machine");
    }
    let golden = Some(golden);
    Ok(machine::Warm::At { ready, golden })
}

/// The first of the machines that this one shares a table of the lab file with, if there are
/// others.
fn first_of_several<'a>(lab: &'a Lab, machine: &lab::Machine) -> Option<&'a lab::Machine> {
    let mut members = lab.machines.iter();
    let mut members = members.by_ref().filter(|it| it.group == machine.group);
    let first = members.next()?;
    members.next().map(|_| first)
}

/// Who a machine is in its snapshot, which it may share with a group: the first of them. Its machine
/// id is the same in every session, as that of a machine is not.
fn golden(
    lab: &Lab,
    first: &lab::Machine,
    shared_by: usize,
) -> Result<machine::Golden, MachineNumberError> {
    let name = first.name.as_str().to_owned();
    Ok(machine::Golden {
        machine_id: machine_id("", &name),
        nics: nics(first)?,
        hosts: hosts(lab, first)?,
        name,
        shared_by,
    })
}

fn rename(golden: &mut machine::Golden, name: &str) {
    let names = golden.hosts.iter_mut().flat_map(|line| &mut line.names);
    for own in names.filter(|own| **own == golden.name) {
        name.clone_into(own);
    }
    name.clone_into(&mut golden.name);
    golden.machine_id = machine_id("", name);
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

    fn planned(wanted: &[&str]) -> Vec<MachinePlan> {
        let lab = Lab::parse_toml(LAB, "lab.toml").unwrap();
        let circumstances = Circumstances {
            session: "abcdefgh",
            base: Path::new("/lab"),
            timeout_factor: 2.0,
            containers: &ContainerLimits::default(),
            warm: true,
            agent_only: false,
            uplink: false,
            late_disks: false,
        };
        plan(&lab, wanted, circumstances).unwrap()
    }

    #[test]
    fn machines_get_their_addresses_by_their_place() {
        let all = planned(&[]);
        let names: Vec<&str> = all.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["app-1", "app-2", "db", "lone"]);
        assert_eq!(
            all[1].addresses(),
            [
                "192.168.2.2/24",
                "2001:db8:2::2/64",
                "192.168.1.2/24",
                "2001:db8:1::2/64"
            ]
        );
        assert_eq!(all[1].nics[0].name, "eth1");
        assert_eq!(all[1].nics[1].mac, [0x52, 0x54, 0, 0x12, 1, 2]);
        assert!(all[3].addresses().is_empty());
    }

    #[test]
    fn everybody_knows_everybody_by_the_first_vlan() {
        let all = planned(&[]);
        let hosts: Vec<String> = all[2]
            .hosts
            .iter()
            .map(|line| format!("{} {}", line.address, line.names.join(" ")))
            .collect();
        let expected = [
            "192.168.2.1 app-1",
            "2001:db8:2::1 app-1",
            "192.168.2.2 app-2",
            "2001:db8:2::2 app-2",
            "192.168.2.3 db",
            "2001:db8:2::3 db",
        ];
        assert_eq!(hosts, expected);
        let own = all[3].hosts.last().unwrap();
        assert_eq!(own.address.to_string(), "127.0.1.1");
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
        assert_eq!(app.start_within, CONTAINER_START * 2);
        // A machine that is left out keeps its place: addresses do not depend on the test.
        assert_eq!(planned(&["db"])[0].addresses()[0], "192.168.2.3/24");
    }

    #[test]
    fn a_machine_that_may_be_either_goes_where_it_can() {
        let lab = Lab::parse_toml("machine.a.image = 'host'", "lab.toml").unwrap();
        let planned = |limits: &ContainerLimits| {
            let circumstances = Circumstances {
                session: "abcdefgh",
                base: Path::new("/lab"),
                timeout_factor: 1.0,
                containers: limits,
                warm: true,
                agent_only: false,
                uplink: false,
                late_disks: false,
            };
            plan(&lab, &[], circumstances).unwrap().remove(0)
        };
        let here = planned(&ContainerLimits::default());
        assert_eq!((here.runs_as, here.moved), (RunsAs::Container, None));
        let any = Some("no ids".to_owned());
        let limits = ContainerLimits {
            any: any.clone(),
            host_image: None,
        };
        let elsewhere = planned(&limits);
        assert_eq!((elsewhere.runs_as, elsewhere.moved), (RunsAs::Vm, any));
        assert!(matches!(elsewhere.want, image::Want::Vm { .. }));
    }

    #[test]
    fn machines_of_one_table_share_a_snapshot() {
        let text = "[machine.a]\nkind = 'vm'\nimage = 'dir:x'\ncount = 3\nready = 'unit:x'\n\
                    [machine.b]\nkind = 'vm'\nimage = 'dir:x'\n\
                    [machine.c]\nkind = 'vm'\nimage = 'dir:x'\nsnapshot = false\n\
                    [machine.d]\nkind = 'container'\nimage = 'dir:x'\n";
        let lab = Lab::parse_toml(text, "lab.toml").unwrap();
        let planned = |wanted: &[&str], warm, agent_only| {
            let circumstances = Circumstances {
                session: "abcdefgh",
                base: Path::new("/lab"),
                timeout_factor: 1.0,
                containers: &ContainerLimits::default(),
                warm,
                agent_only,
                uplink: false,
                late_disks: false,
            };
            plan(&lab, wanted, circumstances).unwrap()
        };
        let all = planned(&[], true, false);
        let goldens: Vec<Option<&str>> = all
            .iter()
            .map(|plan| match &plan.warm {
                machine::Warm::At { golden, .. } => golden.as_ref().map(|it| it.name.as_str()),
                machine::Warm::Cold { because } => Some(because.as_deref().unwrap_or("cold")),
            })
            .collect();
        let no = "the lab file says `snapshot = false`";
        let a = Some("a-1");
        assert_eq!(goldens, [a, a, a, Some("b"), Some(no), Some("cold")]);
        assert_eq!(all[0].group.as_deref(), Some("a"));
        assert_eq!(all[3].group, None);
        // The first of them need not be in the test, and it is the same in each session.
        let some = planned(&["a-2"], true, false);
        assert_eq!(some[0].warm, all[1].warm);
        assert_eq!(some[0].warm, all[0].warm);
        let machine::Warm::At { ready, golden } = &some[0].warm else {
            panic!("cold")
        };
        assert_eq!(*ready, machine::ReadyPoint::Unit("x.service".to_owned()));
        assert_eq!(golden.as_ref().unwrap().nics, all[0].nics);
        let alone = planned(&["b"], true, true).remove(0).warm;
        let machine::Warm::At { ready, .. } = alone else {
            panic!("cold")
        };
        assert_eq!(ready, machine::ReadyPoint::Agent);
        let cold = planned(&["b"], false, false).remove(0).warm;
        assert_eq!(cold, machine::Warm::default());
    }

    #[test]
    fn machines_whose_disks_come_late_share_a_snapshot() {
        let warm = |name: &str| {
            let text = format!("[machine.{name}]\nkind = 'vm'\nimage = 'dir:x'\n");
            let lab = Lab::parse_toml(&text, "lab.toml").unwrap();
            let circumstances = Circumstances {
                session: "abcdefgh",
                base: Path::new("/lab"),
                timeout_factor: 1.0,
                containers: &ContainerLimits::default(),
                warm: true,
                agent_only: false,
                uplink: true,
                late_disks: true,
            };
            plan(&lab, &[], circumstances).unwrap().remove(0).warm
        };
        let machine::Warm::At { golden, .. } = warm("a") else {
            panic!("cold")
        };
        assert_eq!(golden.unwrap().hosts[0].names, ["machine"]);
        assert_eq!(warm("a"), warm("b"));
    }

    #[test]
    fn machine_ids_are_32_digits_and_all_differ() {
        let all = planned(&[]);
        let ids: std::collections::HashSet<&str> =
            all.iter().map(|plan| plan.machine_id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        assert!(ids.iter().all(|id| id.len() == 32));
        assert_ne!(machine_id("abcdefgh", "a"), machine_id("abcdefgj", "a"));
    }
}
