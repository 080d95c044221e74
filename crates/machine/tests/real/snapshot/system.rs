//! A whole system with a disk and a network card, saved and restored.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use libtest_mimic::Failed;
use machinist_machine::{
    Accel, Attach, Boot, Disk, Kind, NicSpec, ReadyPoint, Report, SnapshotStore, StartOptions,
    State, Warm,
};

use super::bench::{Probe, ROOMY, surroundings};
use crate::lab::{LONG, check, run, vm_spec};

/// A VLAN on which nobody else is.
struct Quiet(PathBuf);

impl Attach for Quiet {
    fn vm_port(&self, _machine: &str, _nic: &NicSpec) -> std::io::Result<PathBuf> {
        Ok(self.0.clone())
    }

    fn container_ports(&self, _machine: &str, _nics: &[NicSpec], _pid: u32) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn detach(&self, _machine: &str) {}
}

/// The first line of its disk.
const READ: &str = "head -n1 /dev/vdb";

/// What was ready is ready, disks have what the boot wrote, and each restore its own; a machine that
/// was off keeps what it wrote to its disk, and so boots.
pub fn system() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let store = SnapshotStore::open(&temp.path().join("snapshots"), ROOMY)?;
        let socket = temp.path().join("switch");
        let _switch = UnixListener::bind(&socket)?;
        let mut spec = vm_spec(Accel::Tcg, Boot::System)?;
        spec.kind = Kind::Vm {
            accel: Accel::Tcg,
            disks: vec![Disk::Scratch { size: 64 << 20 }],
        };
        spec.nics.push(NicSpec {
            vlan: 1,
            name: "eth1".into(),
            mac: [0x52, 0x54, 0, 0x12, 1, 1],
            addresses: vec![("192.168.1.1".parse()?, 24)],
        });
        spec.warm = Warm::At {
            // While it boots to be saved nobody has written to its disk; this does.
            ready: ReadyPoint::Command(
                "systemctl is-system-running --wait; echo golden > /dev/vdb".into(),
            ),
            golden: None,
        };
        let probe = |name: &str| {
            let mut environment = surroundings(&store, &temp.path().join(name))?;
            environment.attach = Arc::new(Quiet(socket.clone()));
            Probe::within(spec.clone(), environment)
        };
        let first = probe("first")?;
        first.start().await?;
        check(first.saved() == 1 && first.restored() == 1, first.reports())?;
        first.machine.ready(LONG).await?;
        check(first.sh(READ).await? == "golden", "not what was saved")?;
        first.sh("echo first > /dev/vdb; sync").await?;
        let address = first
            .sh("ip -4 -o addr show eth1; systemctl is-active ssh dbus || true")
            .await?;
        check(address.contains("192.168.1.1/24"), address)?;

        another(&probe("second")?).await?;
        keeps_its_disk(&first).await
    })
}

/// Restored beside the first, it has what was saved.
async fn another(second: &Probe) -> Result<(), Failed> {
    second.start().await?;
    check(
        second.saved() == 0 && second.restored() == 1,
        second.reports(),
    )?;
    check(second.sh(READ).await? == "golden", "another's disk")?;
    let lines = second.machine.console().lines();
    let (mut lines, mut booted) = (lines, false);
    while let Some(line) = lines.try_next() {
        booted |= line.contains("Linux version");
    }
    check(booted, "its console does not tell of its boot")?;
    Ok(second.machine.crash().await?)
}

/// Off, and on again, its disk is its own.
async fn keeps_its_disk(first: &Probe) -> Result<(), Failed> {
    first.machine.shutdown(LONG).await?;
    check(
        first.machine.status().borrow().state == State::Off,
        "it runs",
    )?;
    // QEMU ended as it should, with all its devices.
    let warned = first.count(|report| matches!(report, Report::Warning { .. }));
    check(warned == 0, first.reports())?;
    first.machine.start(StartOptions::default()).await?;
    check(first.restored() == 1, first.reports())?;
    let reason = first.cold().unwrap_or_default();
    check(reason.contains("disks"), reason)?;
    let found = first.sh(READ).await?;
    check(found == "first", found)?;
    Ok(first.machine.crash().await?)
}
