//! Errors of the file system, with the path.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Something could not be done to a path.
#[derive(Debug, Error)]
#[error("cannot {what} {}", path.display())]
pub struct PathError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl PathError {
    /// What the system said.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// Adds what was tried, and to which path.
pub trait At<T> {
    /// `what` is a verb, such as `read`.
    ///
    /// # Errors
    /// The same, with its path.
    fn at(self, what: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError {
            what,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
