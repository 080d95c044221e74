//! A VM that runs and is being saved.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::memory::{self, GuestMemory};
use super::taking::{frozen, memory_file, state_file};
use crate::error::{LaunchError, MachineError, chain};
use crate::lifecycle::State;
use crate::machine::Machine;
use crate::qemu::argv::Drive;
use crate::qemu::frozen::{Frozen, Top};
use crate::qemu::qmp::{Qmp, QmpError};

#[derive(Debug)]
pub(super) struct RunningVm {
    machine: Machine,
    qmp: Qmp,
    place: PathBuf,
    guest: GuestMemory,
    file: Arc<File>,
    moves: Vec<Move>,
    standing: bool,
    system_ready: bool,
}

/// A disk that gets an overlay.
#[derive(Debug)]
struct Move {
    from: Top,
    to: Drive,
    /// What QEMU calls the overlay.
    node: String,
}

/// What keeps a VM that runs from being saved.
pub(super) fn obstacle(machine: &Machine) -> Option<String> {
    let reach = machine.reach().borrow().clone();
    reach.qmp.as_ref()?;
    memory::unreadable(reach.pid?)
}

impl RunningVm {
    /// Makes all that can be made while the machine runs: the memory's file, which begins as what
    /// the guest's memory began as, and overlays for the disks.
    pub(super) async fn prepare(machine: &Machine, place: &Path) -> Result<Self, MachineError> {
        let reach = machine.reach().borrow().clone();
        let (Some(qmp), Some(pid), Some(spec)) = (reach.qmp, reach.pid, machine.spec()) else {
            return Err(machine.trouble(&machine.status().borrow()));
        };
        let unable = |why: &dyn std::error::Error| machine.unable(chain(why));
        let size = spec.memory.next_multiple_of(1 << 20);
        let guest = GuestMemory::find(&qmp, pid, size).await;
        let guest = guest.map_err(|error| unable(&error))?;
        let place = place.to_owned();
        let (tops, dir) = (machine.tops().clone(), machine.dir().to_owned());
        let (base, files) = (reach.memory, place.clone());
        let made = tokio::task::spawn_blocking(move || {
            let file = memory::make_file(&memory_file(&files), base.as_deref(), size);
            let file = file.map_err(|error| error.to_string())?;
            // What is copied now is not what will be saved, but writing to where there is something
            // already is three times faster, and a disk that is full is found out before anything
            // stands still.
            let copied = guest.copy_to(&file);
            copied.map_err(|error| format!("its memory cannot be saved: {error}"))?;
            // Made by us, so that nobody else may read it.
            let state = memory::make_file(&state_file(&files), None, 0);
            state.map_err(|error| error.to_string())?;
            let over = |top: Top| {
                let to = tops.overlay(&dir, &top.drive)?;
                let node = file_stem(&to.path);
                Ok(Move {
                    from: top,
                    to,
                    node,
                })
            };
            let moves: Result<Vec<Move>, LaunchError> = tops.now().into_iter().map(over).collect();
            Ok((file, moves.map_err(|error| chain(&error))?))
        });
        let (file, moves) = match made.await {
            Ok(made) => made.map_err(|why: String| machine.unable(why))?,
            Err(_) => return Err(machine.gone()),
        };
        let system_ready = machine.status().borrow().state == State::Ready;
        let mut vm = Self {
            machine: machine.clone(),
            qmp,
            place,
            guest,
            file: Arc::new(file),
            moves: Vec::new(),
            standing: false,
            system_ready,
        };
        for step in moves {
            vm.execute("blockdev-add", &step.blockdev()).await?;
            // What is in the list is taken out of QEMU again where the rest fails.
            vm.moves.push(step);
        }
        Ok(vm)
    }

    pub(super) async fn stand_still(&mut self) -> Result<(), MachineError> {
        let status = self.execute("query-status", &Value::Null).await?;
        if status.get("running").and_then(Value::as_bool) != Some(true) {
            let why = "somebody has made it stand still, or it is about to stop";
            return Err(self.machine.unable(why));
        }
        self.standing = true;
        self.execute("stop", &Value::Null).await.map(drop)
    }

    pub(super) async fn save(&mut self) -> Result<(), MachineError> {
        let (guest, file) = (self.guest, Arc::clone(&self.file));
        let copied = tokio::task::spawn_blocking(move || guest.copy_to(&file));
        let (command, arguments) = memory::save_devices(&state_file(&self.place));
        let saved = self.execute(command, &arguments).await;
        let copied = copied.await.map_err(|_| self.machine.gone())?;
        let why = |error| {
            self.machine
                .unable(format!("its memory cannot be saved: {error}"))
        };
        copied.map_err(why)?;
        saved?;
        // QEMU does not say whether it could write all of it.
        let state = std::fs::metadata(state_file(&self.place)).map(|found| found.len());
        if !matches!(state, Ok(1..)) {
            return Err(self.machine.unable("the state of its devices is empty"));
        }
        for step in &self.moves {
            let arguments = json!({"node": step.from.node, "overlay": step.node});
            self.execute("blockdev-snapshot", &arguments).await?;
            self.machine.tops().moved(&step.to, step.node.clone());
        }
        Ok(())
    }

    pub(super) async fn go_on(&mut self) -> Result<(), MachineError> {
        if !self.standing {
            return Ok(());
        }
        self.execute("cont", &Value::Null).await?;
        self.standing = false;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Frozen {
        let moves = std::mem::take(&mut self.moves);
        let disks = moves.into_iter().map(|step| step.from.drive).collect();
        frozen(&self.place, disks, self.system_ready)
    }

    async fn execute(&self, command: &str, arguments: &Value) -> Result<Value, MachineError> {
        let answer = self.qmp.execute(command, arguments).await;
        answer.map_err(|why: QmpError| MachineError::Qmp {
            machine: self.machine.name().to_owned(),
            why,
        })
    }
}

impl Drop for RunningVm {
    /// Of one that did not come to its end: the machine goes on.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (qmp, standing) = (self.qmp.clone(), self.standing);
        let nodes: Vec<String> = self.moves.drain(..).map(|step| step.node).collect();
        if !standing && nodes.is_empty() {
            return;
        }
        drop(runtime.spawn(async move {
            if standing {
                drop(qmp.execute("cont", &Value::Null).await);
            }
            for node in nodes {
                // One that a disk lies in already is refused, and stays.
                drop(
                    qmp.execute("blockdev-del", &json!({"node-name": node}))
                        .await,
                );
            }
        }));
    }
}

impl Move {
    /// The overlay, for QEMU: what it stands on is what the disk lies in now.
    fn blockdev(&self) -> Value {
        json!({
            "driver": self.to.format.name(),
            "node-name": self.node,
            "backing": null,
            "discard": "unmap",
            "cache": {"no-flush": true},
            "file": {
                "driver": "file",
                "filename": self.to.path,
                "locking": "off",
                "drop-cache": false,
                "discard": "unmap",
                "cache": {"no-flush": true},
            },
        })
    }
}

/// A name for QEMU that is as unique as the file's.
fn file_stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.replace('.', "-")
}
