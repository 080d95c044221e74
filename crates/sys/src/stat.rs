//! What the kernel tells of a process in one line: `/proc/PID/stat`, see proc_pid_stat(5).

use std::fs;

/// The line of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    name: String,
    /// From the third field on.
    fields: String,
}

impl Stat {
    /// Of process `pid`; none where there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        // The name may be any bytes.
        let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::read(&String::from_utf8_lossy(&line))
    }

    /// Reads such a line.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        // "PID (NAME) STATE ...": the name may hold parentheses and spaces.
        let (before, fields) = line.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        Some(Self {
            name: name.to_owned(),
            fields: fields.to_owned(),
        })
    }

    /// Its program's name, at most 15 bytes of it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who started it, or has it now.
    #[must_use]
    pub fn parent(&self) -> Option<u32> {
        self.field(4)?.parse().ok()
    }

    /// When it started, in clock ticks since the host's boot.
    #[must_use]
    pub fn started(&self) -> Option<u64> {
        self.number(22)
    }

    /// Whether it has ended, and only waits for its parent to look.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.field(3), Some("Z" | "X"))
    }

    /// The field of this number, 4 or higher, which are counted from 1.
    #[must_use]
    pub fn number(&self, field: usize) -> Option<u64> {
        self.field(field)?.parse().ok()
    }

    fn field(&self, number: usize) -> Option<&str> {
        self.fields.split_whitespace().nth(number.checked_sub(3)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_anything() {
        let line = "42 (CPU 0) (KVM) ) R 1 42 42 0 -1 4194368 9 0 0 0 130 20 0 0 20 0 5 0 77 0";
        let stat = Stat::read(line).unwrap();
        assert_eq!(stat.name(), "CPU 0) (KVM) ");
        assert_eq!((stat.parent(), stat.started()), (Some(1), Some(77)));
        assert_eq!((stat.number(14), stat.number(15)), (Some(130), Some(20)));
        assert_eq!((stat.number(99), stat.number(0)), (None, None));
        assert!(!stat.has_ended());
        assert_eq!(Stat::read("nonsense"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_ends() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let stat = Stat::of(child.id()).unwrap();
        assert_eq!(stat.parent(), Some(std::process::id()));
        // It stays until it is waited for.
        let pid = rustix::process::Pid::from_child(&child);
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(Stat::of(child.id()).unwrap().has_ended());
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Stat::of(pid), None);
    }
}
