//! A child that runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// A running child. Dropping it kills its whole process group and reaps it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    exit: Option<ExitStatus>,
    /// The writing end of its standard input, where it was piped.
    pub stdin: Option<ChildStdin>,
    /// The reading end of its standard output, where it was piped.
    pub stdout: Option<ChildStdout>,
    /// The reading end of its standard error, where it was piped.
    pub stderr: Option<ChildStderr>,
}

impl Child {
    pub(super) fn adopt(mut child: std::process::Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error.into());
            }
        };
        Ok(Self {
            pid,
            pidfd,
            exit: None,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        })
    }

    /// Its process id, which is also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its pidfd, which becomes readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends `signal` to the child alone. A child that has ended is no error.
    ///
    /// # Errors
    /// The kernel refuses, which it does for none of our own children.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        gone_is_fine(rustix::process::pidfd_send_signal(&self.pidfd, signal))
    }

    /// Sends `signal` to the child's process group. A group that has ended is no error.
    ///
    /// # Errors
    /// The kernel refuses, which it does for none of our own children.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        gone_is_fine(rustix::process::kill_process_group(self.pid, signal))
    }

    /// Kills the child's process group.
    ///
    /// # Errors
    /// As [`Child::signal_group`].
    pub fn kill_group(&self) -> io::Result<()> {
        self.signal_group(Signal::KILL)
    }

    /// Waits until the child has ended, kills the rest of its process group, and reaps it.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.wait_for(None)?
            .ok_or_else(|| io::Error::other("the child neither ended nor runs"))
    }

    /// As [`Child::wait`], but gives up after `limit`, and then returns `None`.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.wait_for(Some(limit))
    }

    /// As [`Child::wait`], but returns `None` at once while the child runs.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_for(Some(Duration::ZERO))
    }

    /// Asks the process group to end (SIGTERM), and kills it when `grace` has passed.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal_group(Signal::TERM)?;
        if let Some(exit) = self.wait_timeout(grace)? {
            return Ok(exit);
        }
        self.kill_group()?;
        self.wait()
    }

    fn wait_for(&mut self, limit: Option<Duration>) -> io::Result<Option<ExitStatus>> {
        if let Some(exit) = self.exit {
            return Ok(Some(exit));
        }
        if !ended_within(self.pidfd.as_fd(), limit)? {
            return Ok(None);
        }
        // Not yet reaped, so the number of the group is still its own.
        self.kill_group()?;
        let exit = reap(self.pidfd.as_fd())?;
        self.exit = Some(exit);
        Ok(Some(exit))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() && self.kill_group().is_ok() {
            // There is nobody left to tell, and a killed child does end.
            drop(self.wait());
        }
    }
}

fn gone_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process of `pidfd` has ended, waiting for that up to `limit`, or without limit.
pub(super) fn ended_within(pidfd: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn reap(pidfd: BorrowedFd<'_>) -> io::Result<ExitStatus> {
    use std::os::unix::process::ExitStatusExt;
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => break status,
            Ok(None) => return Err(io::Error::other("the child has not ended")),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // The form of wait(2): the code in the second byte, or the signal in the first.
    let code = status.exit_status().unwrap_or(0);
    let signal = status.terminating_signal().unwrap_or(0);
    Ok(ExitStatus::from_raw((code & 0xff) << 8 | (signal & 0x7f)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::super::shell;
    use super::*;

    #[test]
    fn the_status_is_the_childs() {
        assert_eq!(
            shell("exit 7").start().unwrap().wait().unwrap().code(),
            Some(7)
        );
        let killed = shell("kill -9 $$").start().unwrap().wait().unwrap();
        assert_eq!(killed.signal(), Some(9));
        assert_eq!(killed.code(), None);
    }

    #[test]
    fn the_rest_of_the_group_goes_with_its_leader() {
        let mut spawn = shell("sleep 1000 & echo $!");
        spawn.command().stdout(Stdio::piped());
        let mut child = spawn.start().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        child.wait().unwrap();
        // The sleeper held the pipe open: its end is the pipe's end.
        let mut pid = String::new();
        stdout.read_to_string(&mut pid).unwrap();
        assert!(!pid.trim().is_empty());
    }

    #[test]
    fn dropping_kills() {
        let child = shell("sleep 1000").start().unwrap();
        let pid = child.pid();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn terminate_is_patient_and_then_is_not() {
        let mut polite = shell("trap 'exit 3' TERM; echo; while :; do sleep 0.01; done");
        polite.command().stdout(Stdio::piped());
        let mut polite = polite.start().unwrap();
        let mut ready = [0];
        polite
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        assert_eq!(
            polite.terminate(Duration::from_secs(20)).unwrap().code(),
            Some(3)
        );

        let mut deaf = shell("trap '' TERM; echo; while :; do sleep 0.01; done");
        deaf.command().stdout(Stdio::piped());
        let mut deaf = deaf.start().unwrap();
        deaf.stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        assert_eq!(
            deaf.terminate(Duration::from_millis(50)).unwrap().signal(),
            Some(9)
        );
    }

    #[test]
    fn try_wait_does_not_wait() {
        let mut child = shell("sleep 1000").start().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill_group().unwrap();
        child.wait().unwrap();
        assert!(child.try_wait().unwrap().is_some());
        // The number may be somebody else's by now: no signal goes there.
        child.signal_group(Signal::KILL).unwrap();
    }
}
