//! Directories that clients of the VDE protocol connect to, as they would to that of a `vde_switch`.

mod directory;
mod handle;

pub use directory::DirectoryError;
pub(crate) use directory::{Directory, PORT};
pub use handle::VdeDoor;
