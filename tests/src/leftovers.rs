//! What the host looked like before a test, and what a test left.
//!
//! Other things may be going on on the host. So a process counts as left behind only if nobody
//! owns it: if it is new and was adopted because its parent has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::processes::{Process, processes, wait_until};

/// How long the kernel may take to end what has been killed.
const GRACE: Duration = Duration::from_secs(8);

/// What the host looked like.
#[derive(Debug)]
pub struct Before {
    processes: BTreeSet<(u32, u64)>,
    adopter: u32,
    things: BTreeSet<String>,
}

impl Before {
    /// Looks.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn look() -> Result<Self> {
        Ok(Self {
            adopter: adopter()?,
            processes: processes().iter().map(|it| (it.pid, it.started)).collect(),
            things: things(),
        })
    }

    /// What is there that was not, one line each; empty if all is gone within a few seconds.
    #[must_use]
    pub fn left_since(&self) -> Vec<String> {
        let mut left = Vec::new();
        let gone = wait_until(GRACE, || {
            left = self.left_now();
            left.is_empty().then_some(())
        });
        if gone.is_some() { Vec::new() } else { left }
    }

    fn left_now(&self) -> Vec<String> {
        let now = processes();
        let orphans = now.iter().filter(|process| self.is_orphan(process, &now));
        let mut left: Vec<String> = orphans.map(ToString::to_string).collect();
        left.extend(things().difference(&self.things).cloned());
        left
    }

    /// Whether a process is new, and the first of its ancestors that is not new is who adopts.
    fn is_orphan(&self, process: &Process, now: &[Process]) -> bool {
        let known: BTreeMap<u32, &Process> = now.iter().map(|it| (it.pid, it)).collect();
        let is_new = |it: &Process| !self.processes.contains(&(it.pid, it.started));
        let mut at = process;
        while is_new(at) {
            if at.parent == self.adopter {
                return true;
            }
            let Some(parent) = known.get(&at.parent) else {
                return false;
            };
            at = parent;
        }
        false
    }
}

/// Who becomes the parent of a process whose parent ends here: process 1, or a subreaper.
fn adopter() -> Result<u32> {
    let output = std::process::Command::new("sh")
        .args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"])
        .output()
        .context("cannot run sh")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pid: u32 = text.trim().parse().context("sh said no process id")?;
    let orphan = processes().into_iter().find(|process| process.pid == pid);
    if let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    orphan
        .map(|process| process.parent)
        .context("the orphan has gone")
}

/// Mounts, network interfaces and control groups.
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
        if entry.file_name().to_string_lossy().contains("machinist") {
            things.insert(format!("control group {}", entry.path().display()));
        } else {
            groups(&entry.path(), things);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_found_and_a_child_is_not() {
        let before = Before::look().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(
            !before
                .left_now()
                .iter()
                .any(|left| left.contains("sleep 60"))
        );
        let output = std::process::Command::new("sh")
            .args(["-c", "sleep 61 >/dev/null 2>&1 & echo $!"])
            .output()
            .unwrap();
        let left = before.left_now();
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        std::process::Command::new("kill")
            .arg(pid)
            .status()
            .unwrap();
        assert!(
            left.iter().any(|left| left.contains("sleep 61")),
            "{left:?}"
        );
    }
}
