//! What can go wrong on the way to an image.

use std::io;
use std::path::{Path, PathBuf};

use crate::initrd::InitrdError;
use crate::kernel::KernelError;
use crate::space::NoSpace;
use crate::spec::SpecError;
use crate::tool::ToolError;

/// An I/O error, and the path it happened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct PathError {
    /// What was tried, as a verb: `read`, `create`.
    pub doing: &'static str,
    /// To what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Gives an I/O error its path.
pub(crate) trait At<T> {
    /// `doing` is a verb, such as `read`.
    fn at(self, doing: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError {
            doing,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The specification makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A program that builds a part of it is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The disk is full, or would be.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initrd.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// The cache was written by a version of machinist that this one does not understand.
    #[error("the cache at {} has format {found}, and this machinist knows {known}", path.display())]
    Format {
        /// The cache.
        path: PathBuf,
        /// What its format file says.
        found: String,
        /// Ours.
        known: &'static str,
    },
    /// [`crate::Cancel::cancel`] was called.
    #[error("interrupted")]
    Interrupted,
}

impl ImageError {
    /// What the user can do about it, as a sentence, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tool(error) => error.hint(),
            Self::NoSpace(_) => Some(
                "free some space, or `machinist image prune`, or put the cache elsewhere"
                    .to_owned(),
            ),
            Self::Format { path, .. } => Some(format!("remove {}", path.display())),
            Self::Kernel(error) => error.hint(),
            Self::Spec(_) | Self::Path(_) | Self::Initrd(_) | Self::Interrupted => None,
        }
    }
}
