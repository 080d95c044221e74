//! Locks on files and directories that end with their process, however that ends.

use std::fs::{File, TryLockError};
use std::io;

/// A file or a directory that is locked (flock). Dropping it lets go at once.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// The only lock there is. Waits for whoever has one.
    ///
    /// # Errors
    /// The file system has no locks, or a signal came.
    pub fn exclusive(file: File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }

    /// A lock that others may have as well. Waits for whoever has the only one.
    ///
    /// # Errors
    /// The file system has no locks, or a signal came.
    pub fn shared(file: File) -> io::Result<Self> {
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// The only lock there is; `None` where somebody has one.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        Self::tried(file.try_lock(), file)
    }

    /// A lock that others may have as well; `None` where somebody has the only one.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_shared(file: File) -> io::Result<Option<Self>> {
        Self::tried(file.try_lock_shared(), file)
    }

    fn tried(tried: Result<(), TryLockError>, file: File) -> io::Result<Option<Self>> {
        match tried {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Makes an exclusive lock a shared one. Somebody else may have the only one in between.
    ///
    /// # Errors
    /// A signal came while somebody else had it. Then nothing is locked any more.
    pub fn share(&self) -> io::Result<()> {
        self.0.lock_shared()
    }

    /// What is locked.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has a copy of the
        // file until it executes its program.
        drop(self.0.unlock());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn one_has_it_or_many_share_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        let first = Locked::exclusive(open()).unwrap();
        assert!(Locked::try_shared(open()).unwrap().is_none());
        first.share().unwrap();
        let second = Locked::try_shared(open()).unwrap().unwrap();
        drop(first);
        assert!(Locked::try_exclusive(open()).unwrap().is_none());
        drop(second);
        assert!(Locked::try_exclusive(open()).unwrap().is_some());
    }

    #[test]
    fn what_is_let_go_is_free_while_a_child_still_has_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        let held = Locked::exclusive(open()).unwrap();
        let (mut ready, says_ready) = pipe().unwrap();
        let (hears_go, mut go) = pipe().unwrap();
        let mut command = Command::new("true");
        // SAFETY: reading and writing pipes is all that happens between fork and exec.
        unsafe {
            command.pre_exec(move || {
                (&says_ready).write_all(b"!")?;
                (&hears_go).read_exact(&mut [0])
            });
        }
        let starts = thread::spawn(move || command.status());
        ready.read_exact(&mut [0]).unwrap();
        drop(held);
        let free = Locked::try_exclusive(open()).unwrap().is_some();
        go.write_all(b"!").unwrap();
        assert!(starts.join().unwrap().unwrap().success());
        assert!(free);
    }
}
