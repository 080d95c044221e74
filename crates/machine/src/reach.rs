//! What of a running backend a machine's handles can get at.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use crate::nspawn::files::Footing;
use crate::qemu::qmp::Qmp;

/// What there is, at one moment. Nothing, while the machine is off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// A backend runs.
    pub(crate) running: bool,
    /// The process that runs the machine: QEMU, or a container's script.
    pub(crate) pid: Option<u32>,
    /// Of a script's container: the process that is its init.
    pub(crate) leader: Option<u32>,
    pub(crate) qmp: Option<Qmp>,
    /// What the memory of its guest began as, and is where the machine is to be saved; none where that was
    /// empty, and nobody is to read it.
    pub(crate) memory: Option<Arc<File>>,
    /// What saving a container of ours needs.
    pub(crate) footing: Option<Arc<Footing>>,
    /// What is written here, the serial console receives.
    pub(crate) console: Option<ConsoleInput>,
}

/// The writing end of a serial console.
#[derive(Debug, Clone)]
pub(crate) struct ConsoleInput {
    pipe: Arc<Mutex<pipe::Sender>>,
    touched: Arc<AtomicBool>,
}

impl ConsoleInput {
    pub(crate) fn new(pipe: pipe::Sender) -> Self {
        Self {
            pipe: Arc::new(Mutex::new(pipe)),
            touched: Arc::default(),
        }
    }

    pub(crate) async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.touched.store(true, Ordering::Relaxed);
        let mut pipe = self.pipe.lock().await;
        pipe.write_all(bytes).await
    }

    /// Whether anything was written.
    pub(crate) fn touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }
}
