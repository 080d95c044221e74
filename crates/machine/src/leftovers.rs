//! What a machine leaves when the engine is killed, and how it goes.
//!
//! The kernel kills a machine's processes with the engine, and with them go mounts, namespaces and
//! interfaces. Two things stay: the machine's directory, and the cgroup of a container.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::nspawn::cgroup;

/// Removes the cgroup of the machine whose directory is `dir`, with all that still runs in it, and
/// then the directory. For whoever finds it with nobody living in it. Returns what is still there.
#[must_use]
pub fn remove(dir: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    if let Ok(name) = fs::read(dir.join(cgroup::FILE)) {
        let group = PathBuf::from(std::ffi::OsString::from_vec(name));
        // The file is in a directory that only we write to, and yet: only our own names.
        let ours = group
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"machinist-"));
        if ours && !cgroup::remove(&group, Duration::from_secs(5)) {
            left.push(group);
        }
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => left.push(dir.to_owned()),
        _ => {}
    }
    left
}
