//! Directories that are locked: by who makes what is in them, or by who uses it.
//!
//! The lock is on the directory itself, which works on a file system that may only be read, leaves
//! no file behind, and ends with its process, however that ends.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::path_error::{PathContext, PathError};

/// A directory that is locked. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// A lock that others may hold as well; `None` where the directory is not there, or somebody is
    /// about to remove it.
    pub(crate) fn shared(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, |file| match file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// The only lock there is; `None` where the directory is not there, or somebody holds it.
    pub(crate) fn exclusive(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    fn lock(
        path: &Path,
        take: impl Fn(&File) -> std::io::Result<bool>,
    ) -> Result<Option<Self>, PathError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).path(path),
        };
        if !take(&file).path(path)? {
            return Ok(None);
        }
        let lock = Self { file };
        // It may have been moved away just before.
        Ok(lock.is_still_at(path).then_some(lock))
    }

    /// Whether the directory is the one that `path` names.
    pub(crate) fn is_still_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// Gives the exclusive lock up for a shared one, and lets nobody in between who matters: whoever
    /// wants to remove the directory tries once and looks again later.
    pub(crate) fn share(&self) -> std::io::Result<()> {
        self.file.lock_shared()
    }

    /// Marks the directory as used now.
    pub(crate) fn touch(&self) -> std::io::Result<()> {
        self.file.set_modified(std::time::SystemTime::now())
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has a copy of the
        // file until it executes its program.
        drop(self.file.unlock());
    }
}
