//! What the host looked like before a test, and what a test left.
//!
//! Other things may be going on on the host. So not process 1 adopts what the program leaves behind
//! but we do, or the process above us ([`crate::above_us`]): what is left of a test is then a
//! descendant of ours, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::processes::{Process, processes};
use crate::reaper::is_above_us;

/// What the first machine of all makes in /run, and what stays there. It may be another test's.
const STAYS: [&str; 3] = ["machinist", "mount", "systemd"];

/// What the host looked like.
#[derive(Debug)]
pub struct Before {
    runtime: PathBuf,
    things: BTreeSet<String>,
}

impl Before {
    /// Looks, for a test whose sessions will be under `runtime`.
    ///
    /// # Errors
    /// The system does not let us adopt.
    pub fn look(runtime: &Path) -> Result<Self> {
        if !is_above_us() {
            let own = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(own)).context("cannot adopt processes")?;
        }
        Ok(Self {
            runtime: runtime.to_owned(),
            things: things(),
        })
    }

    /// What is there now that was not, one line each.
    #[must_use]
    pub fn left_now(&self) -> Vec<String> {
        let descendants = descendants(std::process::id());
        let ours = descendants
            .iter()
            .filter(|process| !self.of_another_test(process));
        let mut left: Vec<String> = ours.map(ToString::to_string).collect();
        left.extend(things().difference(&self.things).cloned());
        left
    }

    /// Whether a process was started with another directory of sessions: tests may run side by
    /// side. What runs in a machine has no such variable, and counts.
    fn of_another_test(&self, process: &Process) -> bool {
        const NAME: &[u8] = b"MACHINIST_RUNTIME=";
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid));
        let environment = environment.unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables
            .find_map(|variable| variable.strip_prefix(NAME))
            .is_some_and(|value| value != self.runtime.as_os_str().as_encoded_bytes())
    }
}

/// The processes that come from `root`, directly or through others.
fn descendants(root: u32) -> Vec<Process> {
    let all = processes();
    let parents: BTreeMap<u32, u32> = all.iter().map(|it| (it.pid, it.parent)).collect();
    let comes_from_root = |process: &Process| {
        let mut at = process.parent;
        while at != root {
            match parents.get(&at) {
                Some(parent) if *parent != at => at = *parent,
                _ => return false,
            }
        }
        true
    };
    all.iter()
        .filter(|it| comes_from_root(it))
        .cloned()
        .collect()
}

/// Mounts, network interfaces, control groups, and what lies in /run.
fn things() -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        things.extend(line.split(' ').nth(4).map(|at| format!("mount {at}")));
    }
    for name in names(Path::new("/sys/class/net")) {
        things.insert(format!("interface {name}"));
    }
    for name in names(Path::new("/run/netns")) {
        things.insert(format!("network namespace {name}"));
    }
    let in_run = names(Path::new("/run")).into_iter();
    things.extend(
        in_run
            .filter(|name| !STAYS.contains(&name.as_str()))
            .map(|name| format!("/run/{name}")),
    );
    let sessions = Path::new("/run/machinist");
    for name in names(sessions) {
        // Directories are sessions, and may be somebody else's.
        let is_session =
            std::fs::symlink_metadata(sessions.join(&name)).is_ok_and(|at| at.is_dir());
        if !is_session && name != ".gate" {
            things.insert(format!("/run/machinist/{name}"));
        }
    }
    groups(Path::new("/sys/fs/cgroup"), &mut things);
    things
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Our control groups, in whatever hierarchy. Below one of ours nothing more is told.
fn groups(directory: &Path, things: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory {
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A system that a test runs has units that are called after us, without processes; they go
        // with what is the test's.
        let is_own = name == format!("mt-nix-{}", std::process::id());
        if name.starts_with("mt-") && !(is_own && is_deserted(&entry.path())) {
            continue;
        }
        if name.contains("machinist") {
            // One with processes in it is somebody's, or tells of itself by its processes.
            if is_deserted(&entry.path()) {
                things.insert(format!("control group {}", entry.path().display()));
            }
        } else {
            groups(&entry.path(), things);
        }
    }
}

/// Whether no process is in a control group or in one below it.
fn is_deserted(group: &Path) -> bool {
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    let mut below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    members.is_empty() && below.all(|entry| is_deserted(&entry.path()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait_until;

    #[test]
    fn what_a_child_leaves_is_found() {
        let before = Before::look(Path::new("/nowhere")).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", "setsid sleep 61 >/dev/null 2>&1 & echo $!"])
            .env_remove("MACHINIST_RUNTIME")
            .output()
            .unwrap();
        let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let left = wait_until(Duration::from_secs(60), || {
            let left = before.left_now();
            left.iter()
                .any(|left| left.contains("sleep 61"))
                .then_some(left)
        });
        std::process::Command::new("kill")
            .arg(pid)
            .status()
            .unwrap();
        assert!(left.is_some());
    }

    #[test]
    fn what_another_test_runs_is_not_ours() {
        let before = Before::look(Path::new("/nowhere")).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("62")
            .env("MACHINIST_RUNTIME", "/elsewhere")
            .spawn()
            .unwrap();
        let left = before.left_now();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !left.iter().any(|left| left.contains("sleep 62")),
            "{left:?}"
        );
    }
}
