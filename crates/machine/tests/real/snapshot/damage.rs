//! Snapshots that are no good, and places that are none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use machinist_machine::{ReadyPoint, Report, SnapshotStore, Warm};

use super::bench::{Probe, ROOMY, warm_spec};
use super::is_discarded;
use crate::lab::{check, run};

/// A file system in memory; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, options: &str) -> Result<Self, Failed> {
        fs::create_dir(path)?;
        mount(&["-t", "tmpfs", "-o", options, "machinist-test"], path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(arguments: &[&str], path: &Path) -> Result<(), Failed> {
    let status = Command::new("mount").args(arguments).arg(path).status()?;
    check(status.success(), (arguments, path))
}

/// A machine that is never ready is waited for once, not at every start.
pub async fn never_ready(store: &SnapshotStore, dir: &Path) -> Result<(), Failed> {
    let mut spec = warm_spec()?;
    spec.warm = Warm::At {
        ready: ReadyPoint::Command("false".into()),
        golden: None,
    };
    let mut hasty = spec.clone();
    // Nothing of it is up by then.
    hasty.start_within = Duration::from_millis(300);
    let probe = Probe::new(hasty, store, &dir.join("never-ready"))?;
    check(probe.start().await.is_err(), "it is up in no time")?;
    let reason = probe.cold().unwrap_or_default();
    let late = "it could not be saved: it was not ready (";
    check(reason.starts_with(late), &reason)?;
    drop(probe.machine.crash().await);
    let probe = Probe::new(spec, store, &dir.join("never-ready-again"))?;
    probe.start().await?;
    let reason = probe.cold().unwrap_or_default();
    check(reason.starts_with(&format!("a while ago {late}")), &reason)?;
    Ok(probe.machine.crash().await?)
}

/// A store that was moved, and can only be read: what is there is used, what is not boots.
pub async fn read_only(store: &Path, dir: &Path) -> Result<(), Failed> {
    let mounted = Mounted::new(&dir.join("read-only"), "size=600m")?;
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([store, &mounted.0.join("store")])
        .status()?;
    check(copied.success(), "cp")?;
    mount(&["-o", "remount,ro"], &mounted.0)?;
    let store = SnapshotStore::open(&mounted.0.join("store"), ROOMY)?;
    let probe = Probe::new(warm_spec()?, &store, &dir.join("from-read-only"))?;
    probe.start().await?;
    check(
        probe.restored() == 1 && probe.cold().is_none(),
        probe.reports(),
    )?;
    probe.machine.crash().await?;
    let mut other = warm_spec()?;
    other.memory += 16 << 20;
    let probe = Probe::new(other, &store, &dir.join("beside-read-only"))?;
    probe.start().await?;
    let reason = probe.cold().unwrap_or_default();
    check(reason.starts_with("nothing can be saved in "), reason)?;
    Ok(probe.machine.crash().await?)
}

/// The one snapshot in a store.
fn only(store: &SnapshotStore) -> Result<PathBuf, Failed> {
    let list = store.list()?;
    check(list.len() == 1, list.len())?;
    Ok(list[0].path.clone())
}

/// A bit that flipped is found before it does harm; and what QEMU refuses, when it does. Each is
/// thrown away, and made anew.
pub async fn spoilt(dir: &Path, temp: &Path) -> Result<(), Failed> {
    let store = SnapshotStore::open(dir, ROOMY)?;
    flip(&only(&store)?.join("memory"))?;
    let reason = replaced(&store, &temp.join("flipped")).await?;
    check(
        reason.ends_with("its contents are not what was saved"),
        reason,
    )?;

    // As from a QEMU that writes something else, which no hash tells.
    let snapshot = only(&store)?;
    fs::write(snapshot.join("state"), b"QEVM nonsense")?;
    forget_state(&snapshot.join("snapshot.json"))?;
    let reason = replaced(&store, &temp.join("refused")).await?;
    check(reason.starts_with("QEMU ended with status 1"), reason)
}

/// Flips a bit in the middle of a file's data.
fn flip(path: &Path) -> Result<(), Failed> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 16 << 20)?;
    file.write_all_at(&[byte[0] ^ 4], 16 << 20)?;
    Ok(())
}

/// Takes the file `state` out of what is compared.
fn forget_state(manifest: &Path) -> Result<(), Failed> {
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(manifest)?)?;
    let files = value["files"].as_object_mut().ok_or("no files")?;
    check(files.remove("state").is_some(), "no state")?;
    fs::write(manifest, value.to_string())?;
    Ok(())
}

/// Starts a machine whose snapshot is no good: one line, and a new one. Returns the line's reason.
async fn replaced(store: &SnapshotStore, dir: &Path) -> Result<String, Failed> {
    let probe = Probe::new(warm_spec()?, store, dir)?;
    probe.start().await?;
    probe.sh("true").await?;
    let reports = probe.reports();
    check(probe.count(is_discarded) == 1, &reports)?;
    check(probe.saved() == 1 && probe.restored() == 1, &reports)?;
    probe.machine.crash().await?;
    let reason = reports.into_iter().find_map(|report| match report {
        Report::SnapshotDiscarded { reason } => Some(reason),
        _ => None,
    });
    Ok(reason.unwrap_or_default())
}

/// The disk gets full while the machine boots to be saved: it boots once more, says so in one line,
/// and leaves nothing.
pub fn disk_full() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let mounted = Mounted::new(&temp.path().join("small"), "size=560m")?;
        let path = mounted.0.join("store");
        let store = SnapshotStore::open(&path, ROOMY)?;
        let probe = Probe::new(warm_spec()?, &store, &temp.path().join("machine"))?;
        let filling = tokio::task::spawn_blocking(move || fill_up(&path));
        probe.start().await?;
        filling.await??;
        probe.sh("true").await?;
        let reason = probe.cold().unwrap_or_default();
        check(
            reason.starts_with("it could not be saved: the file system of "),
            (&reason, probe.reports()),
        )?;
        check(probe.saved() + probe.restored() == 0, probe.reports())?;
        let left = fs::read_dir(store.dir().join("tmp"))?.count();
        check(left == 0, left)?;
        Ok(probe.machine.crash().await?)
    })
}

/// Takes all room as soon as a machine boots that is to be saved there.
fn fill_up(store: &Path) -> std::io::Result<()> {
    loop {
        let entries = fs::read_dir(store.join("tmp"))?;
        let mut consoles = entries.flatten().map(|entry| entry.path().join("console"));
        if consoles.any(|path| path.exists()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let file = File::create(store.with_extension("filler"))?;
    let zeros = vec![0; 1 << 20];
    for number in 0.. {
        if file.write_all_at(&zeros, number << 20).is_err() {
            break;
        }
    }
    Ok(())
}
