//! A checkpoint that is being taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::RunningContainer;
use super::vm::RunningVm;
use super::{Checkpoint, Moment};
use crate::error::{LaunchError, MachineError, chain};
use crate::lifecycle::State;
use crate::machine::Machine;
use crate::qemu::argv::Drive;
use crate::qemu::frozen::{Frozen, Was};

/// A checkpoint of one machine that is being taken. Dropped before [`Taking::finish`], it lets the
/// machine go on.
#[derive(Debug)]
pub struct Taking {
    machine: Machine,
    what: What,
}

#[derive(Debug)]
enum What {
    Running(Box<RunningVm>),
    Container(Box<RunningContainer>),
    /// Its disks, as they were, and what they lie in from now on.
    Off(Vec<(Drive, Drive)>),
}

impl Machine {
    /// Makes a checkpoint's files in the directory `place`, which must not be there yet, as far as
    /// that can be done while the machine runs.
    ///
    /// # Errors
    /// There is an obstacle ([`Machine::checkpoint_obstacle`]), or the files cannot be made.
    pub async fn begin_checkpoint(&self, place: &Path) -> Result<Taking, MachineError> {
        if let Some(obstacle) = self.checkpoint_obstacle() {
            return Err(self.unable(obstacle));
        }
        let made = make_private(place);
        made.map_err(|error| self.unable(format!("{}: {error}", place.display())))?;
        let state = self.status().borrow().state.clone();
        let what = if state == State::Off {
            What::Off(self.freeze_disks().await?)
        } else if self.reach().borrow().footing.is_some() {
            What::Container(Box::new(RunningContainer::prepare(self, place)?))
        } else {
            What::Running(Box::new(RunningVm::prepare(self, place).await?))
        };
        Ok(Taking {
            machine: self.clone(),
            what,
        })
    }

    /// Of a machine that is off.
    async fn freeze_disks(&self) -> Result<Vec<(Drive, Drive)>, MachineError> {
        let (tops, dir) = (self.tops().clone(), self.dir().to_owned());
        let made = tokio::task::spawn_blocking(move || {
            let above = |top: crate::qemu::frozen::Top| {
                let overlay = tops.overlay(&dir, &top.drive)?;
                Ok((top.drive, overlay))
            };
            let disks: Result<Vec<(Drive, Drive)>, LaunchError> =
                tops.now().into_iter().map(above).collect();
            disks
        });
        match made.await {
            Ok(made) => made.map_err(|error| self.unable(chain(&error))),
            Err(_) => Err(self.gone()),
        }
    }
}

fn make_private(place: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(place)
}

impl Taking {
    /// Makes the machine stand still.
    ///
    /// # Errors
    /// It is going off, or somebody else has made it stand still.
    pub async fn stand_still(&mut self) -> Result<(), MachineError> {
        match &mut self.what {
            What::Running(vm) => vm.stand_still().await,
            What::Container(container) => container.stand_still().await,
            What::Off(_) => Ok(()),
        }
    }

    /// Saves the machine, which stands still.
    ///
    /// # Errors
    /// The files cannot be written, because the disk is full, for example.
    pub async fn save(&mut self) -> Result<(), MachineError> {
        match &mut self.what {
            What::Running(vm) => vm.save().await,
            What::Container(container) => container.save().await,
            What::Off(disks) => {
                for (_, overlay) in disks.iter() {
                    self.machine.tops().moved(overlay, overlay.serial.clone());
                }
                Ok(())
            }
        }
    }

    /// Lets the machine go on.
    ///
    /// # Errors
    /// QEMU does not.
    pub async fn go_on(&mut self) -> Result<(), MachineError> {
        match &mut self.what {
            What::Running(vm) => vm.go_on().await,
            What::Container(container) => container.go_on(),
            What::Off(_) => Ok(()),
        }
    }

    /// As [`Taking::finish`], for others to be made of it.
    pub(super) fn finish_for_others(self, was: Was) -> Checkpoint {
        let mut checkpoint = self.finish();
        if let Moment::Running(frozen) = &mut checkpoint.0 {
            Arc::make_mut(frozen).was = Some(Box::new(was));
        }
        checkpoint
    }

    /// The checkpoint, after all of the above.
    #[must_use]
    pub fn finish(self) -> Checkpoint {
        Checkpoint(match self.what {
            What::Running(vm) => Moment::Running(Arc::new(vm.finish())),
            What::Container(container) => container.finish(),
            What::Off(disks) => Moment::Off(disks.into_iter().map(|(disk, _)| disk).collect()),
        })
    }
}

/// What a VM that ran becomes.
pub(super) fn frozen(place: &Path, disks: Vec<Drive>, system_ready: bool) -> Frozen {
    Frozen {
        memory: memory_file(place),
        state: state_file(place),
        disks,
        system_ready,
        was: None,
    }
}

pub(super) fn memory_file(place: &Path) -> PathBuf {
    place.join("memory")
}

pub(super) fn state_file(place: &Path) -> PathBuf {
    place.join("state")
}
