//! What all sessions of one process share.

use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use machinist_events::Event;
use machinist_lab::ContainerLimits;
use machinist_machine::{AgentBinary, QEMU, Verdicts};
use thiserror::Error;

use crate::images::LazyStore;
use crate::sharing::{Memory, Places};
use crate::snapshots::LazySnapshots;
use crate::sweep::{self, Swept};

/// What an engine is given by its caller; this library reads no environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of all sessions, such as `/run/user/1000/machinist`. Made where it is missing.
    /// Short, because socket paths are at most 107 bytes.
    pub runtime: PathBuf,
    /// Our own program, for the hidden verbs `__guard`, `__launch` and `__enter`.
    pub exe: PathBuf,
    /// The image cache. Not touched before an image is needed.
    pub images: PathBuf,
    /// Where programs (`python3`, `qemu-system-*`, ...) are looked for, as in `PATH`.
    pub search: OsString,
    /// What runs the processors of VMs.
    pub accel: Accel,
    /// Where devices of the Container Device Interface are described; the last has the last word.
    pub cdi: Vec<PathBuf>,
    /// What keeps containers from running here; machines that may be either are then VMs.
    pub containers: ContainerLimits,
    /// Whether VMs may be restored from snapshots instead of booting.
    pub warm: bool,
    /// Where the snapshots are.
    pub snapshots: Snapshots,
    /// How many bytes of memory the machines of all sessions may need at once.
    pub memory_budget: u64,
    /// How many machines may start at once.
    pub starts: NonZero<usize>,
}

/// The directory, beside snapshots that were made to be given away, of the images that they need.
pub const IMAGES: &str = "images";

/// Where VMs are saved, and restored from.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// The directory. Made when it is first needed.
    pub directory: PathBuf,
    /// Directories that are looked into as well, but never written to.
    pub sources: Vec<PathBuf>,
    /// How many bytes the directory may hold; what was used longest ago goes first.
    pub limit: u64,
}

/// What runs the processors of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it is proved to work, else emulation.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

impl From<Accel> for machinist_machine::Accel {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => Self::Auto,
            Accel::Kvm => Self::Kvm,
            Accel::Tcg => Self::Tcg,
        }
    }
}

/// Gets every event of every session of an engine, in each session's own order. Called while the
/// session's log is locked: it must be quick, and must not call back into the session.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// What all sessions of one process share. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) sink: EventSink,
    pub(crate) store: LazyStore,
    pub(crate) agent: AgentBinary,
    pub(crate) verdicts: Verdicts,
    pub(crate) snapshots: LazySnapshots,
    pub(crate) memory: Memory,
    pub(crate) places: Places,
    swept: Vec<Swept>,
}

/// An engine could not be made.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The agent that was built into this program.
    #[error("cannot hold the agent in memory")]
    Agent(#[source] io::Error),
    /// A task of ours has panicked.
    #[error("a task of the engine has ended before its time")]
    Task(#[from] tokio::task::JoinError),
}

impl Engine {
    /// Makes an engine. Sweeps what dead engines left under the runtime directory.
    ///
    /// # Errors
    /// The host is out of memory or of file descriptors.
    pub async fn open(settings: Settings, sink: EventSink) -> Result<Self, EngineError> {
        let made = tokio::task::spawn_blocking(move || {
            let swept = sweep::sweep(&settings.runtime);
            // Whoever made snapshots put beside them what they boot.
            let beside = settings.snapshots.sources.iter();
            let beside = beside.map(|source| source.join(IMAGES)).collect();
            let store = LazyStore::new(&settings.images, beside);
            let agent = AgentBinary::new(machinist_guest::AGENT).map_err(EngineError::Agent)?;
            let qemu = find(&settings.search, QEMU).unwrap_or_default();
            let verdicts = Verdicts::open(&settings.images, &qemu);
            let snapshots = LazySnapshots::new(settings.snapshots.clone());
            let memory = Memory::new(settings.memory_budget);
            let places = Places::new(settings.starts);
            Ok(Self(Arc::new(Shared {
                settings,
                snapshots,
                memory,
                places,
                sink,
                store,
                agent,
                verdicts,
                swept,
            })))
        });
        made.await?
    }

    /// What was swept at the start.
    #[must_use]
    pub fn swept(&self) -> &[Swept] {
        &self.0.swept
    }
}

/// The first program of a name on a search path.
pub(crate) fn find(search: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(search)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        })
}
