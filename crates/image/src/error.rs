//! What can go wrong on the way to an image.

use std::path::PathBuf;

use machinist_sys::owner::NotOurs;
pub(crate) use machinist_sys::path_error::At;
pub use machinist_sys::path_error::PathError;

use crate::initrd::InitrdError;
use crate::kernel::KernelError;
use crate::space::NoSpace;
use crate::spec::SpecError;
use crate::tool::ToolError;

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
    /// Others may put images into the cache.
    #[error("the cache cannot be used: {0}")]
    NotOurs(#[from] NotOurs),
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
            Self::NotOurs(why) => Some(why.hint()),
            Self::Kernel(error) => error.hint(),
            Self::Spec(_) | Self::Path(_) | Self::Initrd(_) | Self::Interrupted => None,
        }
    }
}
