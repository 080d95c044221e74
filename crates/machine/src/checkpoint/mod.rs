//! Checkpoints: a machine as it is at one moment of a test, to go back to.
//!
//! One is taken in steps, so that all machines of a lab can stand still at the same moment, and for
//! as short as can be: [`Machine::begin_checkpoint`] does what can be done while the machine runs,
//! then [`Taking::stand_still`], [`Taking::save`], [`Taking::go_on`], [`Taking::finish`]. A taking
//! that is dropped before its end lets the machine go on as if nothing had been.

mod clones;
mod container;
mod memory;
mod spare;
mod taking;
mod vm;

use std::path::Path;
use std::sync::Arc;

use crate::backend::Earlier;
use crate::error::MachineError;
use crate::lifecycle::State;
use crate::machine::Machine;
use crate::qemu::argv::Drive;
use crate::qemu::frozen::Frozen;
use crate::spec::{Disk, DiskAccess, Kind, MachineSpec};
use crate::task::Ask;

pub use taking::Taking;

/// A machine as it was at one moment. Clones are the same; its files are the caller's, who removes
/// the directory that it was taken into.
#[derive(Debug, Clone)]
pub struct Checkpoint(Moment);

#[derive(Debug, Clone)]
enum Moment {
    /// It ran.
    Running(Arc<Frozen>),
    /// A container that ran. It starts afresh, with what it had written.
    Container {
        archive: Arc<Path>,
        system_ready: bool,
    },
    /// It was off, with these writable disks.
    Off(Vec<Drive>),
}

impl Checkpoint {
    /// Whether the machine ran.
    #[must_use]
    pub fn was_running(&self) -> bool {
        matches!(self.0, Moment::Running(_) | Moment::Container { .. })
    }

    /// Whether a spare can be made of it ([`Machine::reserve`]).
    #[must_use]
    pub fn may_have_a_spare(&self) -> bool {
        matches!(self.0, Moment::Running(_))
    }

    /// Whether the machine has to start once more when it goes back, to be as ready as it was.
    #[must_use]
    pub fn starts_afresh(&self) -> bool {
        matches!(self.0, Moment::Container { system_ready, .. } if system_ready)
    }
}

impl Machine {
    /// What keeps it from being in a checkpoint, as one sentence; nothing, if it can be.
    #[must_use]
    pub fn checkpoint_obstacle(&self) -> Option<String> {
        let Some(spec) = self.spec() else {
            return Some("machines of start scripts cannot be in a checkpoint".into());
        };
        obstacle_in(spec)
            .or_else(|| obstacle_now(&self.status().borrow().state))
            .or_else(|| vm::obstacle(self))
            .or_else(|| container::obstacle(self))
    }

    /// Goes back to a checkpoint of it, whatever it does just now. What runs in it is gone; its
    /// console's text and the handles of it stay. Ends when its agent answers, where it ran then.
    ///
    /// # Errors
    /// It cannot be started from what was saved. Then it has failed.
    pub async fn restore(&self, checkpoint: &Checkpoint) -> Result<(), MachineError> {
        match &checkpoint.0 {
            Moment::Running(frozen) => {
                let ready = frozen.system_ready;
                let frozen = Earlier::Vm(Arc::clone(frozen));
                self.ask(Ask::Restore(frozen, ready)).await?;
                self.until_it_answers().await
            }
            Moment::Container { archive, .. } => {
                let files = Earlier::Container(Arc::clone(archive));
                self.ask(Ask::Restore(files, false)).await?;
                self.until_it_answers().await
            }
            Moment::Off(disks) => {
                self.crash().await?;
                self.put_back(disks.clone()).await
            }
        }
    }

    async fn put_back(&self, disks: Vec<Drive>) -> Result<(), MachineError> {
        let (tops, dir) = (self.tops().clone(), self.dir().to_owned());
        let put = tokio::task::spawn_blocking(move || tops.of_frozen(&dir, &disks).map(drop));
        match put.await {
            Ok(put) => put.map_err(|error| self.unable(crate::error::chain(&error))),
            Err(_) => Err(self.gone()),
        }
    }
}

fn obstacle_in(spec: &MachineSpec) -> Option<String> {
    let Kind::Vm { disks, .. } = &spec.kind else {
        return None;
    };
    if spec.uplink {
        return Some("it has an uplink, and what that has under way cannot be saved".into());
    }
    let written = disks.iter().find_map(|disk| match disk {
        Disk::File {
            path,
            access: DiskAccess::Write | DiskAccess::WriteLater,
        } => Some(path),
        _ => None,
    });
    if let Some(path) = written {
        return Some(format!(
            "it writes to the disk {}, which is a file of yours and would not go back with it",
            path.display()
        ));
    }
    let volume = spec.volumes.first()?;
    Some(format!(
        "it has {} of the host at {}, and what QEMU knows of open files there cannot be saved",
        volume.source.display(),
        volume.target.display()
    ))
}

fn obstacle_now(state: &State) -> Option<String> {
    let why = match state {
        State::Off | State::Up | State::Ready => return None,
        State::Failed { reason } => return Some(format!("it has failed: {reason}")),
        State::Starting | State::Rebooting => "it is starting",
        State::Silent | State::Stopping => "it is about to stop or to restart",
    };
    Some(why.to_owned())
}
