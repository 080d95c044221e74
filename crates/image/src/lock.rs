//! File locks that end with their process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use machinist_sys::lock::Locked;

use crate::error::{At, ImageError, PathError};
use crate::progress::Cancel;

/// A lock that is held. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct FileLock(Locked);

fn open(path: &Path) -> Result<File, PathError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .at("open", path)
}

impl FileLock {
    /// A lock that others may hold as well. Waits for an exclusive one, which its holders keep for
    /// moments only.
    pub(crate) fn shared(path: &Path) -> Result<Self, PathError> {
        let lock = Locked::shared(open(path)?).at("lock", path)?;
        Ok(Self(lock))
    }

    /// The only lock there is, or `None` if anybody has one.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_lock(open(path)?, path)
    }

    /// Locks a directory that is there. `None` if somebody holds it.
    pub(crate) fn try_directory(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_lock(File::open(path).at("open", path)?, path)
    }

    fn try_lock(file: File, path: &Path) -> Result<Option<Self>, PathError> {
        let lock = Locked::try_exclusive(file).at("lock", path)?;
        Ok(lock.map(Self))
    }

    /// The only lock there is, waited for if need be. `waiting` is called once, with the process
    /// that holds it, before waiting. Our own process id is left in the file for the next.
    ///
    /// Only polling can be stopped by `cancel`: it begins at 5 ms and ends at 200 ms.
    pub(crate) fn exclusive(
        path: &Path,
        cancel: &Cancel,
        waiting: &dyn Fn(Option<u32>),
    ) -> Result<Self, ImageError> {
        let mut pause = Duration::from_millis(5);
        let mut told = false;
        loop {
            if let Some(lock) = Self::try_exclusive(path)? {
                lock.sign(path)?;
                return Ok(lock);
            }
            cancel.check()?;
            if !told {
                waiting(holder(path));
                told = true;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    fn sign(&self, path: &Path) -> Result<(), PathError> {
        let mut file = self.0.file();
        file.set_len(0).at("write", path)?;
        write!(file, "{}", std::process::id()).at("write", path)
    }
}

/// Who signed the lock. It may have written nothing yet.
fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
