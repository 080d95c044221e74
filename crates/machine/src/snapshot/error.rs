//! What can go wrong with snapshots.

use std::path::PathBuf;

use crate::path_error::PathError;

/// Why the store of snapshots, or one in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file or directory.
    #[error("cannot use the snapshots")]
    Path(#[from] PathError),
    /// It was written by a version of machinist that this one does not understand.
    #[error("the snapshots at {} have format {found}, and this machinist knows {known}", path.display())]
    Format {
        /// The store, or the snapshot.
        path: PathBuf,
        /// What it says.
        found: String,
        /// Ours.
        known: String,
    },
    /// A file of a snapshot is not what was saved.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, such as `it has 12 bytes instead of 512`.
        what: String,
    },
}
