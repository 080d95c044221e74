//! Who gets the processors.

use std::io;

/// Who a thread gives way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It shares the processors with all others.
    Fair,
    /// It keeps its processor for as long as it has something to do: no other process runs there.
    /// What it starts is fair.
    First,
}

/// Sets when the calling thread gets its turn.
///
/// # Errors
/// The process lacks `CAP_SYS_NICE`, or its control group has no share of such time.
pub fn take(turn: Turn) -> io::Result<()> {
    let (policy, priority) = match turn {
        Turn::Fair => (libc::SCHED_OTHER, 0),
        Turn::First => (libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 99),
    };
    // The structure of the kernel's: a C library may have a larger one.
    let priority: libc::c_int = priority;
    // SAFETY: 0 is the calling thread, and `priority` is what this call reads, and lives through it.
    // The kernel's own call: musl does not make it.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> libc::c_long {
        // SAFETY: the call takes a number.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) }
    }

    #[test]
    fn there_and_back() {
        // On a thread of its own, which ends with its turn.
        let thread = std::thread::spawn(|| match take(Turn::First) {
            Ok(()) => {
                let first = libc::c_long::from(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
                assert_eq!(policy(), first);
                take(Turn::Fair).unwrap();
                assert_eq!(policy(), libc::c_long::from(libc::SCHED_OTHER));
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        });
        thread.join().unwrap();
    }
}
