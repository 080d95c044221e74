//! What a dead engine can leave, and how each is removed. The guard and the sweep use it.
//!
//! In the order in which they go: processes (the parent-death signal kills almost all; this is the
//! second net), cgroups, mounts under the session's directory, the directory itself.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machinist_sys::stat::Stat;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::path_error::{At, PathError};

/// The file of a session that lists its children: a line of process id and start time for each.
pub(crate) const PROCESSES: &str = "processes";

/// The directory of the machines' directories, in a session's.
pub(crate) const MACHINES: &str = "machines";

/// In the environment of a test's script, and so of all that it starts: the session's directory.
pub(crate) const SCRIPT_OF: &str = "MACHINIST_SCRIPT_OF";

/// How long killed processes may take to vanish. They can hang in the kernel, on a dead disk, say.
const VANISH: Duration = Duration::from_secs(5);

/// How long one is waited for that executes a program just now.
const EXEC: Duration = Duration::from_millis(1);

/// Removes all that is left of the session at `path`. Returns what could not be removed.
pub(crate) fn clean_up(path: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let deadline = Instant::now() + VANISH;
    loop {
        // Killed ones may have had children that were being born: look again until none is left.
        let Remaining { alive, unclear } = remaining(path);
        if alive.is_empty() && !unclear {
            break;
        }
        for (_, pidfd) in &alive {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        wait_for_end(&alive, deadline);
        if unclear {
            std::thread::sleep(EXEC);
        }
        if Instant::now() >= deadline {
            left.extend(
                alive
                    .iter()
                    .map(|(pid, _)| format!("process {pid} does not end")),
            );
            break;
        }
    }
    if let Err(error) = remove_machines(path).and_then(|kept| {
        left.extend(
            kept.iter()
                .map(|path| format!("{} cannot be removed", path.display())),
        );
        remove_tree(path)
    }) {
        left.push(format!("{error}: {}", error.io()));
    }
    left
}

/// The session's processes that live: those of its list, and all that its script started.
struct Remaining {
    alive: Vec<(u32, OwnedFd)>,
    /// Whether there are some of whom it is not known yet.
    unclear: bool,
}

fn remaining(path: &Path) -> Remaining {
    let listed = listed(path);
    let mut marker = Vec::from(SCRIPT_OF.as_bytes());
    marker.push(b'=');
    marker.extend_from_slice(path.as_os_str().as_bytes());
    let own = std::process::id();
    let is_ours = |pid: u32| {
        if pid == own {
            return Some(false);
        }
        let is_listed = listed
            .iter()
            .any(|&(known, start)| known == pid && start_time(pid) == Some(start));
        if is_listed {
            return Some(true);
        }
        has_in_environment(pid, &marker)
    };
    let (mut alive, mut unclear) = (Vec::new(), false);
    for pid in all_processes() {
        let ours = is_ours(pid);
        unclear |= ours.is_none();
        if ours != Some(true) {
            continue;
        }
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have changed hands before the pidfd pinned it.
        let ours = is_ours(pid);
        unclear |= ours.is_none();
        if ours == Some(true) && !is_zombie(pid) {
            alive.push((pid, pidfd));
        }
    }
    Remaining { alive, unclear }
}

fn listed(path: &Path) -> Vec<(u32, u64)> {
    let text = fs::read_to_string(path.join(PROCESSES)).unwrap_or_default();
    let mut listed = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let pid = words.next().and_then(|word| word.parse().ok());
        let start = words.next().and_then(|word| word.parse().ok());
        if let (Some(pid), Some(start)) = (pid, start) {
            listed.push((pid, start));
        }
    }
    listed
}

fn all_processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// `None`: it executes a program just now, whose environment is not there yet.
fn has_in_environment(pid: u32, entry: &[u8]) -> Option<bool> {
    let path = format!("/proc/{pid}/environ");
    let read = || fs::read(&path).unwrap_or_default();
    let mut all = read();
    if all.is_empty() {
        if is_in_exec(pid) {
            return None;
        }
        // It may have come to its end between the two looks.
        all = read();
    }
    Some(all.split(|byte| *byte == 0).any(|one| one == entry))
}

/// Whether a process has the memory of a new program, but not yet its environment. Who started it
/// goes on from then.
fn is_in_exec(pid: u32) -> bool {
    // Of include/linux/sched.h: these have no program, and will have none.
    const EXITING: u64 = 0x4;
    const KERNEL_THREAD: u64 = 0x20_0000;
    let Some(stat) = Stat::of(pid) else {
        return false;
    };
    // Where the code begins is noted right after the environment is laid out.
    let (Some(flags), Some(code)) = (stat.number(9), stat.number(26)) else {
        return false;
    };
    code == 0 && flags & (EXITING | KERNEL_THREAD) == 0
}

/// When process `pid` started, in clock ticks since the host booted. With the boot's id before it,
/// since ticks begin anew at every boot; the two as one number, which is never shown.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let ticks = Stat::of(pid)?.started()?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = u64::from_str_radix(boot.get(..8)?, 16).ok()?;
    Some((boot << 32) ^ ticks)
}

fn is_zombie(pid: u32) -> bool {
    Stat::of(pid).is_none_or(|stat| stat.has_ended())
}

/// Removes what belongs to machines: their cgroups and directories.
fn remove_machines(path: &Path) -> Result<Vec<PathBuf>, PathError> {
    unmount_under(path)?;
    let mut left = Vec::new();
    for entry in fs::read_dir(path.join(MACHINES)).into_iter().flatten() {
        let entry = entry.at("list", path)?;
        left.extend(machinist_machine::leftovers::remove(&entry.path()));
    }
    Ok(left)
}

fn wait_for_end(processes: &[(u32, OwnedFd)], deadline: Instant) {
    for (_, pidfd) in processes {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, timeout.as_ref());
    }
}

/// Removes a directory and all in it. Unmounts what is mounted in it first, and removes nothing
/// while something still is: below a mount lie other people's files.
pub(crate) fn remove_tree(path: &Path) -> Result<(), PathError> {
    unmount_under(path)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", path),
    }
}

fn unmount_under(path: &Path) -> Result<(), PathError> {
    // Deepest first, and of two on one place the later one.
    for mount in mounts_under(path).iter().rev() {
        rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).at("unmount", mount)?;
    }
    Ok(())
}

fn mounts_under(path: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&table)
        .filter(|point| point.starts_with(path))
        .collect()
}

/// The mount points of a /proc/PID/mountinfo, in its order.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = escape {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_spaces() {
        let table = b"36 35 98:0 /m /mnt/a\\040b rw shared:1 - ext4 /dev/root rw\n\
            37 36 0:5 / /mnt/a\\040b/c rw - tmpfs tmpfs rw\n";
        let points: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(points, [Path::new("/mnt/a b"), Path::new("/mnt/a b/c")]);
    }

    #[test]
    fn we_ourselves_have_a_start_time_and_nobody_has_none() {
        let own = start_time(std::process::id());
        assert!(own.is_some());
        assert_eq!(own, start_time(std::process::id()));
        assert_eq!(start_time(0), None);
    }

    #[test]
    fn a_tree_goes_also_when_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::create_dir_all(path.join("b/c")).unwrap();
        remove_tree(&path).unwrap();
        assert!(!path.exists());
        remove_tree(&path).unwrap();
    }

    #[test]
    fn who_executes_a_program_is_not_overlooked() {
        for _ in 0..300 {
            let mut child = std::process::Command::new("sleep")
                .arg("1000")
                .env(SCRIPT_OF, "here")
                .spawn()
                .unwrap();
            let entry = format!("{SCRIPT_OF}=here");
            let has = has_in_environment(child.id(), entry.as_bytes());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_ne!(has, Some(false));
        }
        // A thread of the kernel never has one.
        assert_eq!(has_in_environment(2, b"x"), Some(false));
    }

    #[test]
    fn listed_and_marked_processes_die_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aaaaaaaa");
        fs::create_dir(&path).unwrap();
        let sleeper = || {
            std::process::Command::new("sleep")
                .arg("1000")
                .spawn()
                .unwrap()
        };
        let mut listed = sleeper();
        let mut stranger = sleeper();
        let mut marked = std::process::Command::new("sleep")
            .arg("1000")
            .env(SCRIPT_OF, &path)
            .spawn()
            .unwrap();
        let start = start_time(listed.id()).unwrap();
        // The number of the stranger is in the list too, but of another time.
        let text = format!("{} {start}\n{} 1\n", listed.id(), stranger.id());
        fs::write(path.join(PROCESSES), text).unwrap();
        assert_eq!(clean_up(&path), Vec::<String>::new());
        assert!(!path.exists());
        assert!(!listed.wait().unwrap().success());
        assert!(!marked.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
