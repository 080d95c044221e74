//! Whether a builder's service runs: it holds a lock as long as it lives.

use std::fs::File;
use std::io::{Read, Write};

use machinist_sys::lock::Locked;

use super::{State, private_file};
use crate::path_error::{At, PathError};

impl State {
    /// Takes the lock of its service; `None` where another has it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn lock(&self) -> Result<Option<Locked>, PathError> {
        let path = self.path.join("lock");
        let lock = loop {
            let file = private_file().create(true).truncate(false).open(&path);
            let file = file.at("open", &path)?;
            if let Some(lock) = Locked::try_exclusive(file).at("lock", &path)? {
                break lock;
            }
            // One that looks whether the service runs keeps others from nothing.
            if !self.is_free() {
                return Ok(None);
            }
        };
        let mut file = lock.file();
        file.set_len(0).at("write", &path)?;
        writeln!(file, "{}", std::process::id()).at("write", &path)?;
        Ok(Some(lock))
    }

    /// Whether no service holds the lock. It may be taken for a moment by who asks, too.
    fn is_free(&self) -> bool {
        let lock = File::open(self.path.join("lock")).and_then(Locked::try_shared);
        matches!(lock, Ok(Some(_)))
    }

    /// The process id of its service, if that runs.
    #[must_use]
    pub fn pid(&self) -> Option<String> {
        if self.is_free() {
            return None;
        }
        let mut text = String::new();
        let file = File::open(self.path.join("lock")).ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::StateError;
    use super::super::tests::config;
    use super::*;
    use crate::config::Kind;

    #[test]
    fn one_service_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let state = State::create(place.path(), &config("linux", Kind::Container)).unwrap();
        assert_eq!(state.pid(), None);
        let lock = state.lock().unwrap().unwrap();
        assert!(state.lock().unwrap().is_none());
        assert_eq!(state.pid(), Some(std::process::id().to_string()));
        assert!(matches!(
            state.clone().destroy(),
            Err(StateError::Runs { .. })
        ));
        drop(lock);
        assert_eq!(state.pid(), None);
    }
}
