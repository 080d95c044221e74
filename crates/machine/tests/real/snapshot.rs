//! Snapshots of VMs: made once, restored instead of booting, and of no harm when they are no good.
//!
//! A snapshot costs a boot. So one test makes one and does many things with it, in a row.

mod bench;
mod damage;
mod killed;
mod system;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use futures_util::future::try_join_all;
use libtest_mimic::Failed;
use machinist_machine::{
    Golden, MachineSpec, ReadyPoint, Report, SnapshotStore, StartOptions, Warm,
};

use crate::lab::{LONG, check, run_within};
use bench::{Probe, ROOMY, warm_spec};

pub use damage::disk_full;
pub use killed::own;
pub use system::system;

/// Restores of one snapshot, and how many of them at once.
const RESTORES: usize = 100;
const AT_ONCE: usize = 4;

pub fn life() -> Result<(), Failed> {
    // A hundred restores and half a dozen boots, on a host that may do other things as well.
    run_within(5 * LONG, async {
        let temp = tempfile::tempdir()?;
        let dir = temp.path().join("snapshots");
        killed::two_processes(&dir, temp.path()).await?;
        private(&dir)?;
        let store = SnapshotStore::open(&dir, ROOMY)?;
        restored_like_booted(&store, temp.path()).await?;
        killed::qemu_of_a_restore(&store, temp.path()).await?;
        many(temp.path()).await?;
        damage::never_ready(&store, temp.path()).await?;
        killed::while_restoring(&dir, temp.path()).await?;
        drop(store);
        let moved = temp.path().join("moved");
        fs::rename(&dir, &moved)?;
        damage::read_only(&moved, temp.path()).await?;
        damage::spoilt(&moved, temp.path()).await?;
        killed::while_saving(temp.path()).await
    })
}

/// No guest's memory is readable by other users.
fn private(dir: &Path) -> Result<(), Failed> {
    let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
    check(mode == 0o700, (dir, mode))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            private(&entry.path())?;
        } else if entry.path().parent() != Some(dir) {
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            check(mode == 0o600, (entry.path(), mode))?;
        }
    }
    Ok(())
}

/// What a restored machine shows is what a booted one would, also when it restarts.
async fn restored_like_booted(store: &SnapshotStore, dir: &Path) -> Result<(), Failed> {
    let probe = Probe::new(warm_spec()?, store, &dir.join("like"))?;
    // Whether it may restart is no part of the key.
    let options = StartOptions { may_restart: false };
    probe.machine.start(options).await?;
    probe.machine.ready(LONG).await?;
    check(probe.restored() == 1 && probe.saved() == 0, probe.reports())?;
    let told = probe.sh("hostname; cat /etc/machine-id").await?;
    check(told == "probe\n0123456789abcdef0123456789abcdef", &told)?;
    probe.machine.shutdown(LONG).await?;
    // It was restored, so it can be once more; and now it restarts: with kernel and all.
    probe.start().await?;
    check(probe.restored() == 2, probe.reports())?;
    probe.sh("touch /tmp/mark").await?;
    probe.machine.reboot().await?;
    probe
        .sh("test ! -e /tmp/mark && test $(hostname) = probe")
        .await?;
    probe.machine.crash().await?;
    Ok(())
}

/// What a machine with an SSH server has, as far as a restore looks at it.
const HOST_KEY: &str = "mkdir -p /etc/ssh && cd /etc/ssh && echo old > ssh_host_ed25519_key &&
    echo ssh-ed25519 old > ssh_host_ed25519_key.pub";

/// Many restores of one snapshot: all work, each is the machine that it is to be, and no two have
/// the same random state or the same host key.
async fn many(dir: &Path) -> Result<(), Failed> {
    let store = &SnapshotStore::open(&dir.join("of-many"), ROOMY)?;
    let mut seen = HashSet::new();
    for round in 0..RESTORES / AT_ONCE {
        let all = (0..AT_ONCE).map(|number| async move {
            let id = format!("{:032x}", 1 + round * AT_ONCE + number);
            let probe = Probe::new(one_of_many(&id)?, store, &dir.join(&id))?;
            probe.start().await?;
            check(probe.restored() == 1, probe.reports())?;
            let said = probe
                .sh("cat /etc/machine-id; head -c16 /dev/urandom | od -An -tx1
                     cat /etc/ssh/ssh_host_ed25519_key.pub")
                .await?;
            let lines: Vec<&str> = said.lines().collect();
            let [its_id, random, public] = lines[..] else {
                return Err(said.into());
            };
            check(
                its_id == id && public.starts_with("ssh-ed25519 AAAA"),
                &said,
            )?;
            probe.machine.crash().await?;
            Ok::<_, Failed>([random.to_owned(), public.to_owned()])
        });
        for what in try_join_all(all).await?.into_iter().flatten() {
            check(seen.insert(what.clone()), format!("{what} twice"))?;
        }
    }
    check(seen.len() == 2 * RESTORES, seen.len())
}

/// The machine that boots in the shortest time, with another machine id than its snapshot has.
fn one_of_many(id: &str) -> Result<MachineSpec, Failed> {
    let mut spec = warm_spec()?;
    spec.warm = Warm::At {
        ready: ReadyPoint::Command(HOST_KEY.to_owned()),
        golden: Some(Golden {
            name: spec.name.clone(),
            machine_id: std::mem::replace(&mut spec.machine_id, id.to_owned()),
            nics: Vec::new(),
            hosts: Vec::new(),
            shared_by: RESTORES,
        }),
    };
    Ok(spec)
}

fn is_discarded(report: &Report) -> bool {
    matches!(report, Report::SnapshotDiscarded { .. })
}
