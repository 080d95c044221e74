//! I/O errors that say which path they are about.

use std::io;
use std::path::{Path, PathBuf};

/// An I/O error, and the path that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct PathError {
    /// What was to be opened, made, or mounted.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// Gives a result's error its path.
pub(crate) trait PathContext<T> {
    /// The same result; an error is about `path`.
    fn path(self, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> PathContext<T> for Result<T, E> {
    fn path(self, path: &Path) -> Result<T, PathError> {
        self.map_err(|error| PathError {
            path: path.to_owned(),
            source: error.into(),
        })
    }
}
