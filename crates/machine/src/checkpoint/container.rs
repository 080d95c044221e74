//! A container that runs and is being saved: its files. Its processes cannot be, so that at a restore
//! it starts afresh.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Moment;
use crate::error::{MachineError, chain};
use crate::lifecycle::State;
use crate::machine::Machine;
use crate::nspawn::{cgroup, files};

/// How long the processes of a container may take to stand still: one that waits for a disk is not
/// interrupted.
const STAND_STILL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct RunningContainer {
    machine: Machine,
    cgroup: PathBuf,
    upper: Arc<OwnedFd>,
    tar: PathBuf,
    archive: PathBuf,
    file: Option<File>,
    standing: bool,
    system_ready: bool,
}

/// What keeps a container that runs from being saved.
pub(super) fn obstacle(machine: &Machine) -> Option<String> {
    let footing = machine.reach().borrow().footing.clone()?;
    let cgroup = footing.cgroup.as_deref();
    if !cgroup.is_some_and(cgroup::can_freeze) {
        let why =
            "the host cannot make its processes stand still: that needs cgroup2, since Linux 5.2";
        return Some(why.to_owned());
    }
    let lacking = files::tar(&footing.search).err()?;
    Some(lacking.to_string())
}

impl RunningContainer {
    pub(super) fn prepare(machine: &Machine, place: &Path) -> Result<Self, MachineError> {
        let footing = machine.reach().borrow().footing.clone();
        let Some(footing) = footing else {
            return Err(machine.trouble(&machine.status().borrow()));
        };
        let cgroup = footing.cgroup.clone();
        let cgroup = cgroup.ok_or_else(|| machine.unable("it has no control group"))?;
        let tar = files::tar(&footing.search).map_err(|error| machine.unable(error))?;
        let upper = footing.upper();
        let upper = upper.map_err(|error| machine.unable(chain(&error)))?;
        let archive = place.join("files.tar");
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&archive);
        let file =
            file.map_err(|error| machine.unable(format!("{}: {error}", archive.display())))?;
        Ok(Self {
            machine: machine.clone(),
            cgroup,
            upper: Arc::new(upper),
            tar,
            archive,
            file: Some(file),
            standing: false,
            system_ready: machine.status().borrow().state == State::Ready,
        })
    }

    pub(super) async fn stand_still(&mut self) -> Result<(), MachineError> {
        self.standing = true;
        let cgroup = self.cgroup.clone();
        let frozen =
            tokio::task::spawn_blocking(move || cgroup::freeze(&cgroup, STAND_STILL)).await;
        let frozen = frozen.map_err(|_| self.machine.gone())?;
        frozen.map_err(|error| {
            let why = chain(&error);
            let why = format!("its processes cannot be made to stand still: {why}");
            self.machine.unable(why)
        })
    }

    pub(super) async fn save(&mut self) -> Result<(), MachineError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let (tar, upper) = (self.tar.clone(), Arc::clone(&self.upper));
        let packed = tokio::task::spawn_blocking(move || files::pack(&tar, &upper, file)).await;
        let packed = packed.map_err(|_| self.machine.gone())?;
        packed.map_err(|error| {
            let why = format!("its files cannot be saved: {error}");
            self.machine.unable(why)
        })
    }

    pub(super) fn go_on(&mut self) -> Result<(), MachineError> {
        if !std::mem::take(&mut self.standing) {
            return Ok(());
        }
        let thawed = cgroup::thaw(&self.cgroup);
        thawed.map_err(|error| self.machine.unable(chain(&error)))
    }

    pub(super) fn finish(self) -> Moment {
        Moment::Container {
            archive: Arc::from(self.archive.as_path()),
            system_ready: self.system_ready,
        }
    }
}

impl Drop for RunningContainer {
    /// Of one that did not come to its end: the container goes on.
    fn drop(&mut self) {
        // One that has ended meanwhile has no cgroup any more.
        drop(self.go_on());
    }
}
