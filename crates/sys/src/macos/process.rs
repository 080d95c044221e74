//! Child processes where the kernel has neither pidfds nor a signal for when the parent dies: as much
//! of `process` as is used on a Mac.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// A child, and what is in its process group. Dropping it kills both.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    /// Something comes when it has ended.
    ended: Receiver<()>,
    reaped: bool,
}

/// Starts a command, in a process group of its own.
///
/// # Errors
/// The command cannot be started.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let child = command.process_group(0).spawn()?;
    let pid = Pid::from_child(&child);
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || {
        // It is left to be reaped, so its number is nobody else's meanwhile.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
        // Who does not listen any more has waited for it.
        _ = tell.send(());
    });
    Ok(Child {
        child,
        ended,
        reaped: false,
    })
}

impl Child {
    /// Waits until it has ended, at most for so long. `None`: it still runs.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if !self.reaped && self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            return Ok(None);
        }
        self.reap().map(Some)
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            self.kill();
            self.reaped = true;
        }
        self.child.wait()
    }

    /// As long as it is not reaped, the number is its own.
    fn kill(&self) {
        // Where nothing of the group lives any more, there is nothing to kill.
        _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Its end is seen before it is reaped: afterwards the number could be another's.
            _ = self.ended.recv();
            drop(self.reap());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        spawn(command).unwrap()
    }

    #[test]
    fn one_that_ends_is_waited_for() {
        let mut child = shell("exit 3");
        let ended = child.wait_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(ended.unwrap().code(), Some(3));
        // It is known now.
        let again = child.wait_timeout(Duration::ZERO).unwrap();
        assert_eq!(again, ended);
    }

    #[test]
    fn one_that_does_not_is_killed_with_its_group() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        command.stdout(std::os::fd::OwnedFd::from(theirs));
        let mut child = spawn(command).unwrap();
        let early = child.wait_timeout(Duration::from_millis(20)).unwrap();
        assert_eq!(early, None);
        drop(child);
        // The last of those who could write is gone.
        let mut said = Vec::new();
        io::Read::read_to_end(&mut &ours, &mut said).unwrap();
        assert_eq!(said, []);
    }
}
