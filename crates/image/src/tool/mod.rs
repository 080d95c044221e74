//! Other people's programs: one file each, their arguments made by pure functions.

pub(crate) mod copy;
pub(crate) mod depmod;
pub(crate) mod mkfs_erofs;
pub(crate) mod mmdebstrap;
mod run;
pub(crate) mod tar;

pub use run::ToolError;
pub(crate) use run::{Tool, remove_mapped, run};
