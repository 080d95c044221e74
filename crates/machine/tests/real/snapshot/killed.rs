//! Processes that make and restore the same snapshots, and such as are killed meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use libtest_mimic::Failed;
use machinist_machine::{Golden, ReadyPoint, SnapshotStore, Warm};

use super::bench::{Probe, ROOMY, warm_spec};
use crate::lab::{LONG, check, processes_with, run};

/// `__warm STORE DIR`: starts two machines at once, says what became of them, and ends.
pub fn own(arguments: &[String]) -> ExitCode {
    let [store, dir] = arguments else {
        return ExitCode::from(2);
    };
    let result = run(async {
        let store = SnapshotStore::open(Path::new(store), ROOMY)?;
        let starts = (0..2).map(|number| {
            let (store, dir) = (store.clone(), Path::new(dir).join(number.to_string()));
            async move {
                let probe = Probe::new(warm_spec()?, &store, &dir)?;
                probe.start().await?;
                probe.sh("true").await?;
                let counts = (probe.saved(), probe.restored());
                probe.machine.crash().await?;
                Ok::<_, Failed>(counts)
            }
        });
        for (saved, restored) in try_join_all(starts).await? {
            println!("{saved} {restored}");
        }
        Ok(())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn spawn(store: &Path, dir: &Path) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("__warm")
        .args([store, dir])
        .stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// Two processes, with two machines each, want the same snapshot: one machine makes it.
pub async fn two_processes(store: &Path, dir: &Path) -> Result<(), Failed> {
    let mut said = String::new();
    let children = ["a", "b"].map(|name| spawn(store, &dir.join(name)));
    for child in children {
        let mut child = child?;
        let mut stdout = child.stdout.take().ok_or("no output")?;
        stdout.read_to_string(&mut said)?;
        child.wait()?;
    }
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    check(lines == ["0 1", "0 1", "0 1", "1 1"], &said)
}

/// Kills a process as soon as `when` holds, and waits until nothing of it is left.
fn kill_when(mut child: Child, mark: &Path, when: impl Fn() -> bool) -> Result<(), Failed> {
    let deadline = Instant::now() + LONG;
    while !when() {
        if let Some(status) = child.try_wait()? {
            let stdout = child.stdout.take().ok_or("no output")?;
            let lines: Vec<_> = BufReader::new(stdout).lines().collect();
            return Err(format!("it ended before ({status}): {lines:?}").into());
        }
        check(Instant::now() < deadline, "nothing happens")?;
        // The moment is short, and no event tells of it.
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    let mark = mark.display().to_string();
    while !processes_with(&mark).is_empty() {
        check(Instant::now() < deadline, processes_with(&mark))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The directory in which a snapshot is being made, when there is one.
fn being_made(store: &Path) -> Option<PathBuf> {
    let entry = std::fs::read_dir(store.join("tmp")).ok()?.next()?;
    Some(entry.ok()?.path())
}

/// Kills a process while it writes the devices. What it left in its store, if it was hit.
fn killed_while_saving(path: &Path, dir: &Path) -> Result<Option<PathBuf>, Failed> {
    let child = spawn(path, dir)?;
    let has_state = |made: PathBuf| made.join("state").exists();
    let writing = || being_made(path).is_some_and(has_state);
    // It may have been faster than we.
    let written = || {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(has_state)
    };
    kill_when(child, path, || writing() || written())?;
    Ok(being_made(path))
}

/// Killed while the devices are being written: nothing half made is used, and the next one makes it.
pub async fn while_saving(dir: &Path) -> Result<(), Failed> {
    // The moment is short, and a busy host may miss it.
    let killed = (0..5).find_map(|time| {
        let path = dir.join(format!("interrupted-{time}"));
        let killed = killed_while_saving(&path, &dir.join(format!("saving-{time}")));
        killed
            .transpose()
            .map(|left| Ok::<_, Failed>((path, left?)))
    });
    let (path, left) = killed.ok_or("it left nothing, so this tests nothing")??;
    let store = SnapshotStore::open(&path, ROOMY)?;
    check(!left.exists(), "half a snapshot stays")?;
    check(store.list()?.is_empty(), "half a snapshot is in the store")?;
    let probe = Probe::new(warm_spec()?, &store, &dir.join("after-saving"))?;
    probe.start().await?;
    check(probe.saved() == 1 && probe.restored() == 1, probe.reports())?;
    Ok(probe.machine.crash().await?)
}

/// Killed while QEMU restores: the snapshot is what it was.
pub async fn while_restoring(store: &Path, dir: &Path) -> Result<(), Failed> {
    let place = dir.join("restoring");
    let child = spawn(store, &place)?;
    let mark = place.display().to_string();
    // The agent's port is made right before QEMU starts.
    let begun = || place.join("0/agent").exists();
    kill_when(child, Path::new(&mark), begun)?;
    let store = SnapshotStore::open(store, ROOMY)?;
    let probe = Probe::new(warm_spec()?, &store, &dir.join("after-restoring"))?;
    probe.start().await?;
    check(probe.saved() == 0 && probe.restored() == 1, probe.reports())?;
    Ok(probe.machine.crash().await?)
}

/// The name of a machine whose QEMU is killed.
const SHOT: &str = "shot-down";

/// QEMU alone is killed while it restores: that says nothing of the snapshot, which is restored once
/// more.
pub async fn qemu_of_a_restore(store: &SnapshotStore, dir: &Path) -> Result<(), Failed> {
    let mut spec = warm_spec()?;
    spec.warm = Warm::At {
        ready: ReadyPoint::Agent,
        golden: Some(Golden {
            // Found by a name that no other machine has, but by the others' snapshot.
            name: std::mem::replace(&mut spec.name, SHOT.to_owned()),
            machine_id: spec.machine_id.clone(),
            nics: Vec::new(),
            hosts: Vec::new(),
            shared_by: 1,
        }),
    };
    let probe = Probe::new(spec, store, &dir.join(SHOT))?;
    let before = store.list()?.len();
    let killing = tokio::task::spawn_blocking(kill_one);
    // On a slow host it may have come back before it was hit.
    drop(probe.start().await);
    killing.await??;
    check(probe.saved() == 0 && probe.restored() >= 1, probe.reports())?;
    check(store.list()?.len() == before, "the snapshot is gone")?;
    drop(probe.machine.crash().await);
    Ok(())
}

/// Kills the machine's first QEMU.
fn kill_one() -> std::io::Result<()> {
    let deadline = Instant::now() + LONG;
    let pattern = format!("qemu-system.* -name {SHOT},");
    while Instant::now() < deadline {
        let killed = Command::new("pkill")
            .args(["-KILL", "-f", &pattern])
            .status()?;
        if killed.success() {
            return Ok(());
        }
        // The moment is short, and no event tells of it.
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(std::io::ErrorKind::TimedOut.into())
}
