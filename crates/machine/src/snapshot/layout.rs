//! Where snapshots are kept.
//!
//! ```text
//! format          the version of this layout
//! host.json       what was found out about the host
//! known/          hashes of kernels, disks and programs
//! refused/KEY     one that did not restore when it had just been made: nobody tries again for a while
//! KEY/            a snapshot (saved.rs); its users hold a shared lock on the directory
//! tmp/KEY/        one that is being made; its maker holds the lock
//! ```
//! The time of last use is the modification time of a snapshot's directory. Everything here belongs
//! to one user and is readable by nobody else: it holds guests' memory.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::error::SnapshotError;
use crate::path_error::{PathContext, PathError};

/// What the format file says.
const FORMAT: &str = "machinist snapshots 1";

/// Makes what a store needs. Why nothing can be saved in it, where that is so.
pub(super) fn usable(dir: &Path) -> Result<Option<String>, SnapshotError> {
    match (prepare(dir), check_format(dir)) {
        // Somebody's whom we cannot even ask.
        (Err(_), Err(SnapshotError::Path(error)))
            if error.source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(Some(format!("{} is another user's", dir.display())))
        }
        (prepared, checked) => {
            checked?;
            let error = prepared.err();
            Ok(error.map(|it| format!("nothing can be saved in {}: {}", dir.display(), it.source)))
        }
    }
}

/// Makes what a store needs; an error where it cannot be written.
fn prepare(dir: &Path) -> Result<(), PathError> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).path(parent)?;
    }
    let inside = ["tmp", "known", "refused"].map(|name| dir.join(name));
    for path in std::iter::once(dir.to_owned()).chain(inside) {
        private_directory(&path)?;
    }
    rustix::fs::access(dir.join("tmp"), rustix::fs::Access::WRITE_OK).path(dir)?;
    let format = dir.join("format");
    if !format.exists() {
        // Whole at once, and whoever is faster writes the same.
        let beside = tempfile::NamedTempFile::new_in(dir).path(dir)?;
        fs::write(beside.path(), format!("{FORMAT}\n")).path(&format)?;
        let persisted = beside.persist(&format).map_err(|error| error.error);
        persisted.path(&format)?;
    }
    Ok(())
}

fn check_format(dir: &Path) -> Result<(), SnapshotError> {
    let path = dir.join("format");
    let found = match fs::read_to_string(&path) {
        Ok(found) => found,
        // An empty store that cannot be written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).path(&path)?,
    };
    if found.trim() == FORMAT {
        return Ok(());
    }
    Err(SnapshotError::Format {
        path: dir.to_owned(),
        found: found.trim().to_owned(),
        known: FORMAT.to_owned(),
    })
}

/// Makes a directory that nobody else can read, where it is not there.
pub(super) fn private_directory(path: &Path) -> Result<(), PathError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.path(path),
    }
}

/// Removes a file, or a directory with all that is in it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
