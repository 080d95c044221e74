//! Everything that goes into a VM's snapshot.

use std::path::{Path, PathBuf};

use machinist_image::BootRoot;

use super::argv::{Drive, Format, VmPlan};
use super::frozen::Tops;
use super::plan::read_only_drive;
use super::{Qemu, host_program};
use crate::agent;
use crate::backend::Mode;
use crate::error::LaunchError;
use crate::path_error::{PathContext, PathError};
use crate::snapshot::{Known, Parts, ReadyPoint, SnapshotStore, qemu_identity, stamp_of};
use crate::spec::{Disk, DiskAccess, Kind, MachineSpec};
use crate::verdict::Accelerator;

/// What goes in where `spec`, a machine of the backend `qemu` with its golden identity, is saved.
/// Blocks: files that are not known yet are read.
pub(super) fn parts(
    qemu: &Qemu,
    spec: MachineSpec,
    accelerator: Accelerator,
    ready: &ReadyPoint,
    store: &SnapshotStore,
) -> Result<Parts, LaunchError> {
    let mut parts = Parts::default();
    let [version, program] = qemu_identity(&host_program(qemu), store.known())?;
    parts.add("qemu version", version);
    parts.add("qemu program", program);
    store.host().add(accelerator, &mut parts);
    parts.add("agent", store.agent());
    let mut identity = agent::identity(&spec);
    identity.clock = 0;
    let identity = serde_json::to_string(&identity).map_err(|error| {
        LaunchError::Unable(format!("the machine's identity cannot be written: {error}"))
    })?;
    parts.add("identity", identity);
    parts.add("ready", ready.to_string());
    add_arguments(
        &described(qemu, spec, accelerator, store.known())?,
        &mut parts,
    );
    Ok(parts)
}

/// The plan of a machine in which, in the place of each file, its contents are described.
fn described(
    qemu: &Qemu,
    spec: MachineSpec,
    accelerator: Accelerator,
    known: &Known,
) -> Result<VmPlan, LaunchError> {
    // Whether it may restart is the business of each start.
    let mode = Mode {
        plain: false,
        may_restart: true,
    };
    let like = Qemu::new(
        spec,
        qemu.environment.clone(),
        qemu.console.clone(),
        qemu.words.clone(),
        Tops::default(),
    );
    let mut plan = like.outline(accelerator, mode)?;
    plan.kernel = contents(&plan.kernel, known)?;
    plan.initrd = contents(&plan.initrd, known)?;
    if let Some(firmware) = &plan.firmware {
        plan.firmware = Some(contents(firmware, known)?);
    }
    let boot = like.boot()?;
    if let BootRoot::Erofs(path) = &boot.root {
        let mut root = read_only_drive("root", path);
        root.path = contents(path, known)?;
        plan.drives.push(root);
    }
    if let Kind::Vm { disks, .. } = &like.spec.kind {
        for (number, disk) in disks.iter().enumerate() {
            plan.drives.push(describe(disk, format!("disk{number}"))?);
        }
    }
    if let Some(path) = &boot.modules {
        let mut modules = read_only_drive("modules", path);
        modules.path = contents(path, known)?;
        plan.drives.push(modules);
    }
    Ok(plan)
}

fn contents(path: &Path, known: &Known) -> Result<PathBuf, PathError> {
    Ok(known.digest(path)?.into())
}

/// A disk of the lab's. Files of the user's may be huge, so what the file system says of them
/// stands for their contents.
fn describe(disk: &Disk, serial: String) -> Result<Drive, PathError> {
    let (description, format, read_only) = match disk {
        Disk::Scratch { size } => (format!("{size} empty bytes"), Format::Qcow2, false),
        Disk::File { path, access } => {
            let found = std::fs::metadata(path).path(path)?;
            let text = format!("{} {}", path.display(), stamp_of(&found));
            match access {
                DiskAccess::Discard => (format!("above {text}"), Format::Qcow2, false),
                DiskAccess::ReadOnly | DiskAccess::Write => (text, Format::Raw, true),
                // Nothing of it is in what is saved.
                DiskAccess::WriteLater => (format!("{} bytes", found.len()), Format::Raw, false),
            }
        }
    };
    Ok(Drive {
        path: description.into(),
        format,
        read_only,
        keep: false,
        serial,
    })
}

/// Adds a plan's arguments, each option with its value.
fn add_arguments(plan: &VmPlan, parts: &mut Parts) {
    let argv = plan.argv();
    let mut words = argv.iter().map(|word| word.to_string_lossy()).peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-'));
        parts.add(option, value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use machinist_image::{Boot as Files, Held, Image};

    use super::*;
    use crate::console::Console;
    use crate::environment::{AgentBinary, Environment, NoNetwork};
    use crate::snapshot::{SnapshotKey, Warm};
    use crate::spec::{Boot, HostLine, NicSpec, Volume};
    use crate::verdict::{Accel, Verdicts};
    use crate::words::Words;

    /// What is changed, and how.
    type Change = (&'static str, fn(&mut Bench));

    /// A machine, all in files that can be changed.
    struct Bench {
        dir: tempfile::TempDir,
        spec: MachineSpec,
        accelerator: Accelerator,
        ready: ReadyPoint,
    }

    fn nic() -> NicSpec {
        NicSpec {
            vlan: 1,
            name: "eth1".into(),
            mac: [2, 0, 0, 0, 0, 1],
            addresses: vec![("192.168.1.1".parse().unwrap(), 24)],
        }
    }

    fn host() -> HostLine {
        HostLine {
            address: "192.168.1.2".parse().unwrap(),
            names: vec!["db".into()],
        }
    }

    /// A program that tells this version. A shell writes it: what another test is just starting would
    /// have a copy of a file that we have open, and it could not be run.
    fn put_qemu(dir: &Path, version: &str) {
        let script = "printf '#!/bin/sh\\necho QEMU %s\\n' $1 >$0; chmod 700 $0";
        let program = dir.join(super::super::PROGRAM);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script]).arg(program).arg(version);
        assert!(shell.status().unwrap().success());
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = |name: &str| {
                let path = dir.path().join(name);
                fs::write(&path, name).unwrap();
                path
            };
            put_qemu(dir.path(), "10.0");
            let image = Image {
                id: "0".repeat(64).parse().unwrap(),
                name: "debian".into(),
                root: "/".into(),
                boot: Some(Files {
                    kernel: file("kernel"),
                    initrd: file("initrd"),
                    root: BootRoot::Erofs(file("root.erofs")),
                    modules: Some(file("modules.erofs")),
                    kernel_version: "6.1".into(),
                }),
                held: Held::nothing(),
            };
            let disks = vec![
                Disk::Scratch { size: 1 << 20 },
                Disk::File {
                    path: file("data.img"),
                    access: DiskAccess::ReadOnly,
                },
            ];
            let spec = MachineSpec {
                name: "web".into(),
                image,
                kind: Kind::Vm {
                    accel: Accel::Tcg,
                    disks,
                },
                boot: Boot::System,
                memory: 512 << 20,
                cpus: 1,
                nics: vec![nic()],
                uplink: false,
                hosts: vec![host()],
                machine_id: "1".repeat(32),
                volumes: Vec::new(),
                publish: Vec::new(),
                start_within: Duration::from_secs(1),
                warm: Warm::default(),
            };
            Self {
                dir,
                spec,
                accelerator: Accelerator::Tcg,
                ready: ReadyPoint::System,
            }
        }

        fn parts(&self) -> Parts {
            let environment = Environment {
                dir: self.dir.path().join("machine"),
                exe: PathBuf::new(),
                agent: AgentBinary::new(b"agent").unwrap(),
                attach: Arc::new(NoNetwork),
                report: Arc::new(|_| {}),
                verdicts: Verdicts::forgetful(),
                search: self.dir.path().into(),
                hidden: Vec::new(),
                snapshots: None,
            };
            let qemu = Qemu::new(
                self.spec.clone(),
                environment,
                Console::new(None, Box::new(|_| {})).unwrap(),
                Words::default(),
                Tops::default(),
            );
            let store = SnapshotStore::open(&self.dir.path().join("store"), 0).unwrap();
            let spec = self.spec.clone();
            parts(&qemu, spec, self.accelerator, &self.ready, &store).unwrap()
        }

        fn key(&self) -> SnapshotKey {
            self.parts().key()
        }

        fn disks(&mut self) -> &mut Vec<Disk> {
            match &mut self.spec.kind {
                Kind::Vm { disks, .. } => disks,
                Kind::Container { .. } => panic!("it is a VM"),
            }
        }
    }

    #[test]
    fn every_part_changes_the_key() {
        let changes: &[Change] = &[
            ("name", |it| it.spec.name = "other".into()),
            ("machine id", |it| it.spec.machine_id = "2".repeat(32)),
            ("hosts", |it| it.spec.hosts[0].names[0] = "other".into()),
            ("mac", |it| it.spec.nics[0].mac[5] = 9),
            ("address", |it| it.spec.nics[0].addresses.clear()),
            ("nic", |it| it.spec.nics.clear()),
            ("memory", |it| it.spec.memory = 768 << 20),
            ("cpus", |it| it.spec.cpus = 2),
            ("boot", |it| it.spec.boot = Boot::Agent),
            ("ready", |it| it.ready = ReadyPoint::Agent),
            ("unit", |it| it.ready = ReadyPoint::Unit("a".into())),
            ("command", |it| it.ready = ReadyPoint::Command("a".into())),
            ("accelerator", |it| it.accelerator = Accelerator::Kvm),
            ("disk's size", |it| {
                it.disks()[0] = Disk::Scratch { size: 2 << 20 }
            }),
            ("disk is gone", |it| drop(it.disks().pop())),
            ("order of disks", |it| it.disks().swap(0, 1)),
            ("disk's access", |it| match &mut it.disks()[1] {
                Disk::File { access, .. } => *access = DiskAccess::Discard,
                Disk::Scratch { .. } => {}
            }),
            ("uplink", |it| it.spec.uplink = true),
            ("volume", |it| {
                it.spec.volumes.push(Volume {
                    source: "/srv".into(),
                    target: "/srv".into(),
                    writable: false,
                });
            }),
        ];
        for (what, change) in changes {
            let mut bench = Bench::new();
            let before = bench.key();
            change(&mut bench);
            let after = bench.key();
            assert_ne!(before, after, "{what}");
        }
    }

    #[test]
    fn every_file_changes_the_key() {
        for file in [
            "kernel",
            "initrd",
            "root.erofs",
            "modules.erofs",
            "data.img",
            super::super::PROGRAM,
        ] {
            let bench = Bench::new();
            let before = bench.parts();
            assert_eq!(before, bench.parts());
            let path = bench.dir.path().join(file);
            // The same length, as a new build of the same may have.
            let mut text = fs::read(&path).unwrap();
            let last = text.len() - 1;
            text[last] = b'#';
            fs::write(&path, text).unwrap();
            let after = bench.parts();
            assert_ne!(before.key(), after.key(), "{file}");
        }
    }

    #[test]
    fn of_a_disk_that_is_used_later_only_the_size_is_in_the_key() {
        let mut bench = Bench::new();
        if let Disk::File { access, .. } = &mut bench.disks()[1] {
            *access = DiskAccess::WriteLater;
        }
        let before = bench.key();
        let path = bench.dir.path().join("data.img");
        fs::write(&path, "other###").unwrap();
        assert_eq!(before, bench.key());
        fs::write(&path, "larger than before").unwrap();
        assert_ne!(before, bench.key());
    }

    #[test]
    fn another_version_of_qemu_is_named() {
        let bench = Bench::new();
        let before = bench.parts();
        put_qemu(bench.dir.path(), "11.0");
        let difference = before.difference(&bench.parts()).unwrap();
        assert_eq!(
            difference.to_string(),
            "qemu version: QEMU 10.0 here, QEMU 11.0 there"
        );
    }

    #[test]
    fn what_each_start_decides_is_in_no_key() {
        let mut bench = Bench::new();
        let before = bench.key();
        bench.spec.start_within = Duration::from_secs(2);
        bench.spec.warm = Warm::At {
            ready: ReadyPoint::Agent,
            golden: None,
        };
        bench.spec.publish.push(crate::spec::Publish {
            host: "127.0.0.1:0".parse().unwrap(),
            guest: 80,
        });
        assert_eq!(before, bench.key());
    }
}
