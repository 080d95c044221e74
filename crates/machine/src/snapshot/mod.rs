//! Snapshots: VMs that were saved right after their boot, and are restored instead of booting.
//!
//! A snapshot is a directory ([`Saved`]) in a [`SnapshotStore`], known by a key over everything
//! that went into the machine ([`Parts`]). How one is made and restored is in `qemu/warm.rs`; what
//! a user should know is in `docs/snapshots.md`.

mod catalogue;
mod claim;
pub(crate) mod digest;
mod elsewhere;
mod error;
mod host;
mod known;
mod layout;
mod lock;
mod parts;
mod refusal;
mod saved;
mod store;
#[cfg(test)]
mod tests;
mod warm;

pub(crate) use claim::{Claim, Making};
pub(crate) use host::qemu as qemu_identity;
pub(crate) use known::Known;
pub(crate) use saved::{CONSOLE, Draft, MEMORY, STATE, disk_name};

/// What a file system says of a file, as text that changes when the file is written.
pub(crate) fn stamp_of(found: &std::fs::Metadata) -> String {
    digest::Stamp::of(found).text()
}

pub use catalogue::{Freed, SnapshotInfo};
pub use error::SnapshotError;
pub use parts::{Difference, Part, Parts, SnapshotKey};
pub use saved::{Manifest, Saved};
pub use store::SnapshotStore;
pub use warm::{Golden, ReadyPoint, Warm};
