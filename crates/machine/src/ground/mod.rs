//! The ground that containers of start scripts stand on.
//!
//! Such scripts expect a host that is all theirs: a `/run` to write to, cgroup2 at
//! `/sys/fs/cgroup`, terminals, and a network namespace in which they make bridges called `br<n>`.
//! Each session gives them one, made of a mount and a network namespace of its own, so that the
//! host's own `/run`, `/etc` and bridges are never touched, two sessions do not meet, and nothing is
//! left when the session ends: the namespaces hang on descriptors of this process alone.
//!
//! A helper process makes the mounts (`lay`) and ends; the scripts' launchers enter.

mod cables;
pub(crate) mod lack;
pub(crate) mod lay;
mod mirror;

use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use machinist_sys::namespace::NetNs;
use machinist_sys::process::Spawn;
use rustix::fs::{Mode, OFlags};

pub use lack::{Lack, Lacks, Need};

/// Why there is no ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// The host does not give what containers need.
    #[error(transparent)]
    Lacks(#[from] Lacks),
    /// The helper process failed.
    #[error("the helper that prepares containers ({} __ground) failed", exe.display())]
    Helper {
        /// The program that it was to be.
        exe: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// A session's ground. Laid when it is first asked for; clones are the same.
#[derive(Debug, Clone)]
pub struct Ground {
    exe: PathBuf,
    laid: Arc<Mutex<Option<Arc<Laid>>>>,
}

/// The namespaces, held by their descriptors.
#[derive(Debug)]
pub(crate) struct Laid {
    mounts: OwnedFd,
    network: NetNs,
}

impl Ground {
    /// One that is to be laid by `exe`, a program whose `main` calls [`crate::helper::dispatch`].
    #[must_use]
    pub fn new(exe: PathBuf) -> Self {
        Self {
            exe,
            laid: Arc::default(),
        }
    }

    /// The network namespace in which start scripts make their bridges `br<n>`, and in which a tap
    /// `vde-tap<n>` belongs. Blocks while the ground is laid.
    ///
    /// # Errors
    /// The host lacks something; no file descriptor is left.
    pub fn network(&self) -> Result<NetNs, GroundError> {
        self.laid()?
            .network
            .try_clone()
            .map_err(|source| self.failed(source))
    }

    /// The ground, laid by now. Blocks.
    pub(crate) fn laid(&self) -> Result<Arc<Laid>, GroundError> {
        let mut laid = self.laid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(laid) = &*laid {
            return Ok(Arc::clone(laid));
        }
        let new = Arc::new(self.lay()?);
        *laid = Some(Arc::clone(&new));
        Ok(new)
    }

    fn lay(&self) -> Result<Laid, GroundError> {
        let (ours, theirs) = UnixStream::pair().map_err(|source| self.failed(source))?;
        let mut spawn = Spawn::new(&self.exe);
        spawn
            .command()
            .arg("__ground")
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stderr(Stdio::inherit());
        let helper = spawn.start().map_err(|source| self.failed(source))?;
        let mut line = String::new();
        BufReader::new(&ours)
            .read_line(&mut line)
            .map_err(|source| self.failed(source))?;
        let said: Result<(), Lacks> =
            serde_json::from_str(&line).map_err(|source| self.failed(source.into()))?;
        said?;
        // It waits for the end of the socket, with all of its namespaces.
        Laid::of(helper.pid()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> GroundError {
        GroundError::Helper {
            exe: self.exe.clone(),
            source,
        }
    }
}

impl Laid {
    fn of(helper: u32) -> io::Result<Self> {
        let mounts = format!("/proc/{helper}/ns/mnt");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            mounts: rustix::fs::open(mounts, flags, Mode::empty())?,
            network: NetNs::of_process(helper)?,
        })
    }

    /// The mount namespace, as a path for a process that we start.
    pub(crate) fn mounts_path(&self) -> PathBuf {
        of_ours(self.mounts.as_fd())
    }

    /// The network namespace, as a path for a process that we start.
    pub(crate) fn network_path(&self) -> PathBuf {
        of_ours(self.network.as_fd())
    }
}

fn of_ours(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// Whether containers can run here, found by doing what they need done. Blocks for some
/// milliseconds, and leaves nothing.
///
/// # Errors
/// All that is lacking; or the helper could not be run.
pub fn probe(exe: &Path) -> Result<(), GroundError> {
    Ground::new(exe.to_owned()).laid().map(drop)
}
