//! Directories that are locked: by who makes what is in them, or by who uses it.
//!
//! The lock is on the directory itself, which works on a file system that may only be read, leaves
//! no file behind, and ends with its process, however that ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use machinist_sys::lock::Locked;

use crate::path_error::{PathContext, PathError};

/// A directory that is locked. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct DirectoryLock(Locked);

impl DirectoryLock {
    /// A lock that others may hold as well; `None` where the directory is not there, or somebody is
    /// about to remove it.
    pub(crate) fn shared(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, Locked::try_shared)
    }

    /// The only lock there is; `None` where the directory is not there, or somebody holds it.
    pub(crate) fn exclusive(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, Locked::try_exclusive)
    }

    fn lock(
        path: &Path,
        take: impl FnOnce(File) -> io::Result<Option<Locked>>,
    ) -> Result<Option<Self>, PathError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).path(path),
        };
        let lock = take(file).path(path)?.map(Self);
        // It may have been moved away just before.
        Ok(lock.filter(|lock| lock.is_still_at(path)))
    }

    /// Whether the directory is the one that `path` names.
    pub(crate) fn is_still_at(&self, path: &Path) -> bool {
        match (self.0.file().metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// Gives the exclusive lock up for a shared one, and lets nobody in between who matters: whoever
    /// wants to remove the directory tries once and looks again later.
    pub(crate) fn share(&self) -> io::Result<()> {
        self.0.share()
    }

    /// Marks the directory as used now.
    pub(crate) fn touch(&self) -> io::Result<()> {
        self.0.file().set_modified(std::time::SystemTime::now())
    }
}
