//! Network namespaces: made, opened, and worked in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A network namespace, held by a file descriptor: it lives as long as somebody is in it or holds
/// it. One that only this process holds is gone when the process is, with all its interfaces and
/// their peers, however the process ends.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

impl NetNs {
    /// A new one, with nothing in it but a loopback interface that is down.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn new() -> io::Result<Self> {
        on_own_thread(|| {
            // SAFETY: only CLONE_NEWNET is unshared, no file descriptors or memory are, and the
            // thread, which is ours alone, ends after the next line.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            Self::open(Path::new("/proc/thread-self/ns/net"))
        })?
    }

    /// That of a process.
    ///
    /// # Errors
    /// Where there is no such process, or it may not be looked into.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// That of the calling thread.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// One that is bound to a file.
    ///
    /// # Errors
    /// Where the file cannot be opened. That it is a network namespace shows when it is entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// A second handle to the same namespace.
    ///
    /// # Errors
    /// Where no file descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Runs `f` in it; see [`in_netns`].
    ///
    /// # Errors
    /// Those of [`in_netns`].
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        in_netns(self.as_fd(), f)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for NetNs {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Runs `f` inside the network namespace `netns`, on a thread of its own, and waits for it.
/// Sockets that `f` opens stay in that namespace and may be handed out. What it reads and writes
/// below `/proc/sys/net` is the namespace's own.
///
/// # Errors
/// Where the namespace cannot be entered: it is none, or `CAP_SYS_ADMIN` is missing.
///
/// # Panics
/// Where `f` does.
pub fn in_netns<R: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> R + Send) -> io::Result<R> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        Ok(f())
    })?
}

fn on_own_thread<R: Send>(f: impl FnOnce() -> R + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}
