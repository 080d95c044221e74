//! The processes of the host, as /proc tells them.

use std::fmt;
use std::time::{Duration, Instant};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the host's boot: tells it from a later one of the
    /// same number.
    pub started: u64,
    /// Its parent's number.
    pub parent: u32,
    /// The command line, its words separated by spaces; the bare name for one without.
    pub command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {:.200}", self.pid, self.command)
    }
}

/// All processes but zombies and the kernel's own.
#[must_use]
pub fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    if fields.first() == Some(&"Z") || parent == 2 || pid == 2 {
        return None;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command = command.trim_end();
    Some(Process {
        pid,
        started: fields.get(19)?.parse().ok()?,
        parent,
        command: if command.is_empty() { name } else { command }.to_owned(),
    })
}

/// Looks again and again, with growing pauses, until there is something or the time is over.
pub fn wait_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_a_process() {
        let own = std::process::id();
        let all = processes();
        let ours = all.iter().find(|process| process.pid == own).unwrap();
        assert!(
            ours.started > 0 && ours.command.contains("machinist_tests"),
            "{ours:?}"
        );
    }

    #[test]
    fn waiting_ends() {
        assert_eq!(wait_until(Duration::ZERO, || Some(1)), Some(1));
        assert_eq!(wait_until(Duration::from_millis(5), || None::<()>), None);
    }
}
