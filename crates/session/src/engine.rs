//! What all sessions of one process share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use machinist_events::Event;

use crate::sweep::Swept;

/// What an engine is given by its caller; this library reads no environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of all sessions, such as `/run/user/1000/machinist`. Made where it is missing.
    /// Short, because socket paths are at most 107 bytes.
    pub runtime: PathBuf,
    /// Our own program, for the hidden verbs `__guard`, `__launch` and `__enter`.
    pub exe: PathBuf,
    /// The image cache.
    pub images: PathBuf,
    /// Where programs (`python3`, `qemu-system-*`, ...) are looked for, as in `PATH`.
    pub search: OsString,
    /// What runs the processors of VMs.
    pub accel: Accel,
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

/// Gets every event of every session of an engine, in each session's own order. Called while the
/// session's log is locked: it must be quick, and must not call back into the session.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// What all sessions of one process share. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) sink: EventSink,
    swept: Vec<Swept>,
}

impl Engine {
    /// Makes an engine. Sweeps what dead engines left under the runtime directory.
    ///
    /// # Errors
    /// The runtime directory or the image cache cannot be used.
    pub async fn open(settings: Settings, sink: EventSink) -> Result<Self, EngineError> {
        let runtime = settings.runtime.clone();
        let swept = tokio::task::spawn_blocking(move || crate::sweep::sweep(&runtime))
            .await
            .map_err(EngineError::Sweep)?;
        Ok(Self(Arc::new(Shared {
            settings,
            sink,
            swept,
        })))
    }

    /// What was swept at the start.
    #[must_use]
    pub fn swept(&self) -> &[Swept] {
        &self.0.swept
    }
}

/// An engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The task that sweeps has panicked.
    #[error("cannot sweep what earlier sessions left")]
    Sweep(#[source] tokio::task::JoinError),
}
