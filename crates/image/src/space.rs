//! Room on the disk.

use std::path::{Path, PathBuf};

use crate::error::{At, PathError};

/// There is no room.
#[derive(Debug, thiserror::Error)]
#[error(
    "no space left to build {what}: the file system at {} has {} free, and at least {} are needed",
    path.display(), megabytes(*free), megabytes(*needed)
)]
pub struct NoSpace {
    /// What was to be built.
    pub what: String,
    /// Where the file system is mounted.
    pub path: PathBuf,
    /// Bytes free when we looked.
    pub free: u64,
    /// Bytes that it takes, at least.
    pub needed: u64,
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// Bytes that we may still write where `path` is.
pub(crate) fn free(path: &Path) -> Result<u64, PathError> {
    let stat = rustix::fs::statvfs(path).at("look at the file system of", path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Refuses to begin what cannot end well.
pub(crate) fn require(path: &Path, what: &str, needed: u64) -> Result<(), crate::ImageError> {
    let free = free(path)?;
    if free >= needed {
        return Ok(());
    }
    Err(no_space(path, what, free, needed).into())
}

/// The error, with the mount point instead of some path below it.
pub(crate) fn no_space(path: &Path, what: &str, free: u64, needed: u64) -> NoSpace {
    NoSpace {
        what: what.to_owned(),
        path: mount_point(path),
        free,
        needed,
    }
}

/// The highest directory that is on the same file system.
fn mount_point(path: &Path) -> PathBuf {
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
    let own = device(path);
    let mut highest = path;
    for parent in path.ancestors() {
        if device(parent) != own {
            break;
        }
        highest = parent;
    }
    highest.to_owned()
}
