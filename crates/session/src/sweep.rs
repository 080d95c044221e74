//! Removing what dead engines left.

use std::path::{Path, PathBuf};

use machinist_sys::lock::Locked;

use crate::directory;
use crate::leftovers;

/// A session whose engine had died without its guard having cleaned up: after a power cut, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Its directory.
    pub path: PathBuf,
    /// What could not be removed, and why; empty where all is gone.
    pub left: Vec<String>,
}

/// Removes everything of the sessions under `runtime` whose engine is dead, and touches no other.
/// Cgroups go wherever their session was: not even its directory need be there any more.
/// What cannot be listed at all is swept by the next start.
#[must_use]
pub fn sweep(runtime: &Path) -> Vec<Swept> {
    let Ok(_gate) = directory::gate(runtime) else {
        return Vec::new();
    };
    let Ok(paths) = directory::session_paths(runtime) else {
        return Vec::new();
    };
    let mut swept = Vec::new();
    for path in paths {
        // Locked by a live engine, or by a guard that is at it.
        let Ok(Some(_lock)) = directory::try_lock(&path, Locked::try_exclusive) else {
            continue;
        };
        let left = leftovers::clean_up(&path);
        swept.push(Swept { path, left });
    }
    machinist_machine::leftovers::sweep_cgroups();
    swept
}
