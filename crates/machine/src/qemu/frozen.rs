//! What a VM begins with where that is not a boot, and where its writable disks lie.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use machinist_guest::Settled;

use super::argv::{Drive, Format};
use super::disks;
use crate::error::LaunchError;
use crate::spec::MachineSpec;

/// A VM as it was at one moment. Nobody writes to its files any more: memory is mapped privately,
/// and disks have overlays put on them.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    /// The guest's memory.
    pub(crate) memory: PathBuf,
    /// The state of the devices.
    pub(crate) state: PathBuf,
    /// The writable disks, by their serial numbers.
    pub(crate) disks: Vec<Drive>,
    /// Its own system had finished its start.
    pub(crate) system_ready: bool,
    /// Who it was, where others are made of it.
    pub(crate) was: Option<Box<Was>>,
}

/// Who a machine was that others are made of.
#[derive(Debug, Clone)]
pub(crate) struct Was {
    pub(crate) spec: MachineSpec,
    pub(crate) settled: Settled,
    pub(crate) saved: SystemTime,
}

/// A writable disk, as it lies at present.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    pub(crate) drive: Drive,
    /// What the QEMU that runs calls its block node.
    pub(crate) node: String,
}

/// Where the writable disks of one machine lie at present: each in a file of the machine's
/// directory, which may be an overlay on others. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tops(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    tops: Vec<Top>,
    /// Counts overlays: no two have the same name.
    made: u64,
}

impl Tops {
    /// The drives of a boot: `first`, as the machine's first start has them, or what they have
    /// become since.
    pub(crate) fn of_boot(&self, first: Vec<Drive>) -> Vec<Drive> {
        let mut inner = self.lock();
        let present: Vec<Drive> = inner.tops.iter().map(|top| top.drive.clone()).collect();
        let drives = put_in(first, &present);
        inner.begin(&drives);
        drives
    }

    /// Fresh overlays in `dir` on what was frozen. They are what the machine's disks are from now
    /// on. Blocks.
    pub(crate) fn of_frozen(
        &self,
        dir: &Path,
        frozen: &[Drive],
    ) -> Result<Vec<Drive>, LaunchError> {
        let drives = self.overlays(dir, frozen)?;
        self.begin(&drives);
        Ok(drives)
    }

    /// Makes overlays in `dir` on what was frozen, and changes nothing else. Blocks.
    pub(crate) fn overlays(&self, dir: &Path, frozen: &[Drive]) -> Result<Vec<Drive>, LaunchError> {
        frozen.iter().map(|disk| self.overlay(dir, disk)).collect()
    }

    /// These are what the machine's disks are from now on.
    pub(crate) fn begin(&self, drives: &[Drive]) {
        self.lock().begin(drives);
    }

    /// Makes an overlay on a disk in `dir`, and changes nothing else. Blocks.
    pub(crate) fn overlay(&self, dir: &Path, disk: &Drive) -> Result<Drive, LaunchError> {
        let number = {
            let mut inner = self.lock();
            inner.made += 1;
            inner.made
        };
        let path = dir.join(format!("{}.{number}.qcow2", disk.serial));
        // Of a machine that was here before, perhaps.
        drop(std::fs::remove_file(&path));
        Ok(Drive {
            path: disks::overlay(&path, &disk.path, disk.format)?,
            format: Format::Qcow2,
            read_only: false,
            keep: false,
            serial: disk.serial.clone(),
        })
    }

    /// The disks as they lie now.
    pub(crate) fn now(&self) -> Vec<Top> {
        self.lock().tops.clone()
    }

    /// The machine never had them.
    pub(crate) fn forget(&self) {
        self.begin(&[]);
    }

    /// From now on a disk lies in `drive`, which the QEMU that runs calls `node`.
    pub(crate) fn moved(&self, drive: &Drive, node: String) {
        let mut inner = self.lock();
        let top = inner
            .tops
            .iter_mut()
            .find(|top| top.drive.serial == drive.serial);
        if let Some(top) = top {
            top.drive = drive.clone();
            top.node = node;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same drives, with those of `others` in the place of those with their serial numbers.
fn put_in(drives: Vec<Drive>, others: &[Drive]) -> Vec<Drive> {
    let other = |drive: Drive| {
        let other = others.iter().find(|other| other.serial == drive.serial);
        other.cloned().unwrap_or(drive)
    };
    drives.into_iter().map(other).collect()
}

impl Inner {
    fn begin(&mut self, drives: &[Drive]) {
        let writable = drives.iter().filter(|drive| !drive.read_only);
        self.tops = writable
            .map(|drive| Top {
                drive: drive.clone(),
                node: drive.serial.clone(),
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &Path, serial: &str) -> Drive {
        Drive {
            path: path.to_owned(),
            format: Format::Raw,
            read_only: false,
            keep: false,
            serial: serial.to_owned(),
        }
    }

    #[test]
    fn disks_move_to_overlays_and_stay_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk0.img");
        std::fs::write(&path, [0; 4096]).unwrap();
        let tops = Tops::default();
        let mut user = disk(Path::new("/user.img"), "disk1");
        user.read_only = true;
        let first = vec![disk(&path, "disk0"), user];
        assert_eq!(tops.of_boot(first.clone()), first);
        // What nobody writes to is no disk that moves.
        assert_eq!(tops.now().len(), 1);
        let frozen = tops.now().remove(0).drive;
        let above = tops.overlay(dir.path(), &frozen).unwrap();
        tops.moved(&above, "disk0-1".into());
        assert_eq!(tops.now()[0].node, "disk0-1");
        // The next boot finds the overlay.
        assert_eq!(tops.of_boot(first)[0], above);
        assert_eq!(tops.now()[0].node, "disk0");
        // Twice back to the same: two overlays.
        let one = tops
            .of_frozen(dir.path(), std::slice::from_ref(&frozen))
            .unwrap();
        let other = tops.of_frozen(dir.path(), &[frozen]).unwrap();
        assert_ne!(one, other);
        assert_eq!(tops.now()[0].drive, other[0]);
        assert!(one[0].path.exists() && other[0].path.exists());
    }
}
