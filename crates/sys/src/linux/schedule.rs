//! Who gets the processors.

use std::io;

use rustix::process::Pid;

use super::call::check;

/// When a process gets its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It shares the processors with all others.
    Fair,
    /// Before those who share. What it starts is fair.
    Early,
    /// Before all others: it keeps its processor for as long as it has something to do. What it starts
    /// by [`crate::vfork`] is early, all else fair.
    First,
}

/// Sets when the calling thread gets its turn. Makes one system call and allocates nothing.
///
/// # Errors
/// The process lacks `CAP_SYS_NICE`, or its control group has no share of such time.
pub fn take(turn: Turn) -> io::Result<()> {
    set(0, turn)
}

/// Sets when the process gets its turn: its first thread.
///
/// # Errors
/// As [`take`], and where there is no such process.
pub fn give(pid: Pid, turn: Turn) -> io::Result<()> {
    set(pid.as_raw_nonzero().get(), turn)
}

/// Whether the calling thread's turn is [`Turn::First`].
pub(crate) fn is_first() -> bool {
    // SAFETY: the call takes a number; 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy == libc::c_long::from(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK)
}

fn set(pid: libc::pid_t, turn: Turn) -> io::Result<()> {
    // The priority is all that the kernel's structure has; a C library's may have more.
    let (policy, priority): (_, libc::c_int) = match turn {
        Turn::Fair => (libc::SCHED_OTHER, 0),
        Turn::Early => (libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1),
        Turn::First => (libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 99),
    };
    // SAFETY: `priority` is what this call reads, and lives through it. It is the kernel's own call:
    // musl does not make it.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            pid,
            policy,
            &raw const priority,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        // On a thread of its own, which ends with its turn.
        let thread = std::thread::spawn(|| match take(Turn::First) {
            Ok(()) => {
                assert!(is_first());
                take(Turn::Early).unwrap();
                assert!(!is_first());
                take(Turn::Fair).unwrap();
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        });
        thread.join().unwrap();
    }
}
