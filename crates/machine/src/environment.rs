//! Where a machine runs, and whom it tells.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::ground::Ground;
use crate::snapshot::SnapshotStore;
use crate::spec::NicSpec;
use crate::verdict::Verdicts;

/// The network, as a machine sees it. A session implements it.
///
/// Methods may block; they are called where that is allowed.
pub trait Attach: Send + Sync {
    /// A Unix socket that takes one connection from QEMU's `stream` netdev for this NIC, and any
    /// later ones in its place.
    ///
    /// # Errors
    /// There is no such VLAN, or no socket can be made.
    fn vm_port(&self, machine: &str, nic: &NicSpec) -> io::Result<PathBuf>;

    /// Places for a VM that is to take this machine's place later; one for each of these NICs.
    ///
    /// # Errors
    /// There is no such VLAN, or no socket can be made.
    fn reserve(&self, machine: &str, nics: &[NicSpec]) -> io::Result<Box<dyn Reserve>> {
        let _ = (machine, nics);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Hangs the network namespace of process `pid` on the VLANs, by one interface for each NIC,
    /// with its name, MAC and addresses, and brings them and the loopback up.
    ///
    /// # Errors
    /// There is no such VLAN, or the kernel refuses.
    fn container_ports(&self, machine: &str, nics: &[NicSpec], pid: u32) -> io::Result<()>;

    /// The machine is off: its ports may go.
    fn detach(&self, machine: &str);

    /// Whether the VM of a start script is on its VLANs, or alone though the ends of its cables are
    /// there.
    fn plug(&self, machine: &str, plugged: bool) {
        let _ = (machine, plugged);
    }

    /// What the start scripts of containers stand on: one for all of a session, so that their
    /// bridges are the same. With none, each machine gets one for itself.
    fn ground(&self) -> Option<Ground> {
        None
    }
}

/// Places on the network that nobody hangs on yet. What is sent to their sockets waits there, and
/// nothing comes from them. Dropping them removes the sockets.
pub trait Reserve: Send {
    /// Unix sockets as [`Attach::vm_port`] gives them, in the order of the NICs.
    fn sockets(&self) -> &[PathBuf];

    /// From now on these are the machine's places on its VLANs; [`Attach::detach`] lets them go.
    /// May block.
    ///
    /// # Errors
    /// The switch does not take one of them. Others may have been taken.
    fn take(self: Box<Self>) -> io::Result<()>;
}

/// No network at all.
#[derive(Debug, Clone, Copy)]
pub struct NoNetwork;

impl Attach for NoNetwork {
    fn vm_port(&self, _machine: &str, nic: &NicSpec) -> io::Result<PathBuf> {
        Err(io::Error::other(format!("there is no VLAN {}", nic.vlan)))
    }

    fn container_ports(&self, _machine: &str, nics: &[NicSpec], _pid: u32) -> io::Result<()> {
        nics.first().map_or(Ok(()), |nic| {
            Err(io::Error::other(format!("there is no VLAN {}", nic.vlan)))
        })
    }

    fn detach(&self, _machine: &str) {}
}

/// What is told of a machine, as it happens. Durations are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It is being started.
    Starting {
        /// `qemu` or `nspawn`.
        backend: &'static str,
        /// `kvm` or `tcg` for a VM.
        accel: Option<&'static str>,
    },
    /// Hardware virtualization did not work; it starts once more without.
    AccelFallback {
        /// What was seen.
        reason: String,
    },
    /// The agent answers.
    Up {
        /// Since the start (or the restart) was asked for or seen.
        seconds: f64,
    },
    /// Its own system says that its start has finished.
    Ready {
        /// Since the start (or the restart) was asked for or seen.
        seconds: f64,
    },
    /// It is off, because somebody wanted that.
    Stopped,
    /// It died, or could not be started.
    Failed {
        /// What was seen.
        reason: String,
        /// The end of its console, and of its backend's own output.
        last_words: Vec<String>,
    },
    /// It is restored from a snapshot; its agent answers in a moment.
    Restored {
        /// Since the start was asked for.
        seconds: f64,
    },
    /// It has booted to its ready point and was saved; it goes on as a restore of that snapshot.
    SnapshotSaved {
        /// From the ready point on.
        seconds: f64,
    },
    /// A snapshot was of no use and is thrown away; the machine boots.
    SnapshotDiscarded {
        /// What was seen.
        reason: String,
    },
    /// It boots although it was to be restored.
    ColdBecause {
        /// One sentence.
        reason: String,
    },
    /// One line of its console, control sequences and all.
    Console {
        /// The line.
        line: String,
    },
    /// Something to know that fails nothing.
    Warning {
        /// One sentence.
        text: String,
    },
}

/// Told what happens to a machine. Called from the machine's task: it must not block.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// Where a machine runs.
#[derive(Clone)]
pub struct Environment {
    /// The machine's own directory; made if it is not there. The caller removes it.
    pub dir: PathBuf,
    /// A program whose `main` calls [`crate::helper::dispatch`]: usually our own.
    pub exe: PathBuf,
    /// The agent.
    pub agent: AgentBinary,
    /// The network.
    pub attach: Arc<dyn Attach>,
    /// Who is told.
    pub report: Reporter,
    /// What is known of this host's accelerators.
    pub verdicts: Verdicts,
    /// Where programs are looked for, as in `PATH`.
    pub search: OsString,
    /// Absolute paths that a machine whose root is the host's sees as empty directories: the
    /// cache, and the sessions' directories.
    pub hidden: Vec<PathBuf>,
    /// Where VMs are saved, and restored from. Without one they all boot.
    pub snapshots: Option<SnapshotStore>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// A machine's ports on the network; dropping it lets them go.
pub(crate) struct Attached {
    attach: Arc<dyn Attach>,
    machine: String,
}

impl Attached {
    pub(crate) fn new(environment: &Environment, machine: &str) -> Self {
        Self {
            attach: Arc::clone(&environment.attach),
            machine: machine.to_owned(),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.attach.detach(&self.machine);
    }
}

/// The agent's binary, in memory, as a file that a container can execute. One serves all machines.
#[derive(Debug, Clone)]
pub struct AgentBinary(Arc<OwnedFd>);

impl AgentBinary {
    /// Puts `bytes` there.
    ///
    /// # Errors
    /// The host is out of memory or of file descriptors.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        for _ in 1..ATTEMPTS {
            match sealed(bytes) {
                // The kernel itself holds a page of it at the moment: it tidies its memory, say.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                made => return Ok(Self(Arc::new(made?))),
            }
        }
        Ok(Self(Arc::new(sealed(bytes)?)))
    }

    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// How often a file is made that nobody can write to any more.
const ATTEMPTS: usize = 10;

/// A file in memory with these bytes, which can be executed and not be written to.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let make = |flags| rustix::fs::memfd_create("machinist-agent", flags);
    // A host can forbid to execute what does not ask for it; before Linux 6.3 nobody asked.
    let fd = match make(flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => make(flags),
        made => made,
    }?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    // A container's root has its hands on it, and other containers run it.
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The file of the machine's directory in which its console is logged.
#[must_use]
pub fn console_log(dir: &Path) -> PathBuf {
    dir.join("console.log")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nobody_writes_to_the_agents_binary() {
        let binary = AgentBinary::new(b"agent").unwrap();
        let mut file = std::fs::File::from(binary.descriptor().unwrap());
        assert!(file.write_all(b"other").is_err());
        assert!(file.set_len(0).is_err());
    }
}
