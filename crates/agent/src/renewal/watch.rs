//! systemd's watch over the clock.
//!
//! systemd has the kernel tell it when somebody sets the clock; it then looks at all of its timers, and
//! tells others of them, which takes an emulated processor as long as a command or two. That of a restored
//! machine need not be: what goes by the calendar waits for a time of the kernel's, which is right again by
//! then, and what was due meanwhile is dealt with apart. What systemd watches with is a timer that never
//! fires; we share it, and the watch is off for as long as it takes us to set the clock.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

/// A timer that another process watches the clock with.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// That of the machine's init. None where it has none, or where the kernel cannot share it.
    pub(super) fn of_init() -> Option<Self> {
        Self::of(Pid::INIT)
    }

    fn of(pid: Pid) -> Option<Self> {
        let entries = fs::read_dir(format!("/proc/{}/fdinfo", pid.as_raw_nonzero())).ok()?;
        let watches = entries.flatten().filter(|entry| {
            fs::read_to_string(entry.path()).is_ok_and(|info| watches_the_clock(&info))
        });
        let mut numbers = watches.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let number = numbers.next()?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let timer = pidfd_getfd(process, number, PidfdGetfdFlags::empty());
        timer.ok().map(Self)
    }

    /// The clock may be set now, and nobody is told.
    pub(super) fn look_away(&self) -> io::Result<()> {
        self.set(TimerfdTimerFlags::ABSTIME)
    }

    /// Whoever sets the clock from now on is noticed.
    pub(super) fn look_again(&self) -> io::Result<()> {
        self.set(TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET)
    }

    fn set(&self, flags: TimerfdTimerFlags) -> io::Result<()> {
        let nothing = Timespec::default();
        let never = Itimerspec {
            it_interval: nothing,
            it_value: Timespec {
                tv_sec: i64::MAX,
                ..nothing
            },
        };
        timerfd_settime(&self.0, flags, &never)?;
        Ok(())
    }
}

/// Whether what the kernel tells of an open file is a timer of the calendar's clock that is cancelled
/// when the clock is set.
fn watches_the_clock(info: &str) -> bool {
    ["clockid: 0", "settime flags: 03"]
        .into_iter()
        .all(|wanted| info.lines().any(|line| line == wanted))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::process::getpid;
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

    use super::*;

    #[test]
    fn a_watch_is_off_for_a_while() {
        let flags = TimerfdFlags::CLOEXEC;
        let other = timerfd_create(TimerfdClockId::Realtime, flags).unwrap();
        let timer = timerfd_create(TimerfdClockId::Realtime, flags).unwrap();
        Watch(timer.try_clone().unwrap()).look_again().unwrap();
        Watch(other).look_away().unwrap();
        let watches = || {
            let info = format!("/proc/self/fdinfo/{}", timer.as_raw_fd());
            watches_the_clock(&fs::read_to_string(info).unwrap())
        };
        let Some(watch) = Watch::of(getpid()) else {
            // Some containers forbid to share descriptors.
            assert!(pidfd_open(getpid(), PidfdFlags::empty()).is_err() || watches());
            return;
        };
        assert!(watches());
        watch.look_away().unwrap();
        assert!(!watches());
        watch.look_again().unwrap();
        assert!(watches());
    }
}
