//! The processes that came from one, wherever they went since.

use std::collections::HashMap;
use std::fs;

use machinist_sys::stat::Stat;
use rustix::process::{Pid, PidfdFlags, Signal};

/// How often to look again: what is forked while we look is seen the next time.
const ROUNDS: usize = 100;

/// Kills everything that came from process `root`, but not `root` itself, which must be alive, and a
/// subreaper: then nothing that came from it has another parent's parent.
pub(crate) fn kill_descendants(root: u32) {
    for _ in 0..ROUNDS {
        let mut alive = 0;
        for (pid, parent) in descendants(root) {
            alive += usize::from(kill(pid, parent));
        }
        if alive == 0 {
            return;
        }
        std::thread::yield_now();
    }
}

/// Processes below `root`, each with its parent. The ended ones are not among them.
fn descendants(root: u32) -> Vec<(u32, u32)> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Some(parent) = parent_of(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut level = vec![root];
    while let Some(parent) = level.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            found.push((pid, parent));
            level.push(pid);
        }
    }
    found
}

/// The parent of a process that has not ended.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = Stat::of(pid).filter(|stat| !stat.has_ended())?;
    stat.parent()
}

/// Kills a process, if it still is the one that was found.
fn kill(pid: u32, parent: u32) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else {
        return false;
    };
    // From here on the descriptor names one process, and so does the number, if the parent is right.
    parent_of(pid) == Some(parent)
        && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}
