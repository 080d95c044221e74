//! A child process whose end can be awaited.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;

use machinist_sys::process::Child;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A child process. Dropping it kills its process group and reaps it.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    end: AsyncFd<OwnedFd>,
}

impl Supervised {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that lie about their descriptor; OwnedFd does not"
    )]
    pub(crate) fn new(child: Child) -> io::Result<Self> {
        let pidfd = child.pidfd().try_clone_to_owned()?;
        Ok(Self {
            child,
            end: AsyncFd::with_interest(pidfd, Interest::READABLE)?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits for the end and reaps.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut guard = self.end.readable().await?;
            if let Some(exit) = self.child.try_wait()? {
                return Ok(exit);
            }
            guard.clear_ready();
        }
    }

    pub(crate) fn kill(&self) {
        drop(self.child.kill_group());
    }
}

/// An exit status in words, after `it` or a program's name.
pub(crate) fn describe(exit: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
