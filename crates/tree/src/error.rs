//! What can go wrong with a tree.

use std::io;
use std::path::PathBuf;

use machinist_wire::{Blob, ProtocolError};
use thiserror::Error;

/// A tree could not be packed or unpacked.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name that leads out of the tree, or is none.
    #[error("the tree has a bad path: {path:?}")]
    BadPath {
        /// As it came.
        path: Blob,
    },
    /// A record that does not belong where it came.
    #[error("the tree is broken: {what}")]
    Broken {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The records cannot be read.
    #[error("the tree is broken")]
    Protocol(#[from] ProtocolError),
    /// A socket, pipe or device: it has no contents to carry.
    #[error("{} is a {kind}, which cannot be copied", path.display())]
    Special {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: String,
    },
}

impl TreeError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    /// The system's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
