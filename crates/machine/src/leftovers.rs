//! What a machine leaves when the engine is killed, and how it goes.
//!
//! The kernel kills a machine's processes with the engine, and with them go mounts, namespaces and
//! interfaces. Two things stay: the machine's directory, and the cgroup of a container. The first
//! says where the second is; where somebody else removed it, [`sweep_cgroups`] finds the cgroup.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{IFlags, Mode, OFlags};

use crate::nspawn::cgroup;
use crate::path_error::{PathContext, PathError};

/// The file in a machine's directory that says where its state is, which outlives it.
const STATE: &str = "state";

/// Writes into a machine's directory where its state is, for whoever removes the former.
pub(crate) fn note_state(dir: &Path, state: &Path) -> Result<(), PathError> {
    let note = dir.join(STATE);
    fs::write(&note, state.as_os_str().as_bytes()).path(&note)
}

/// Removes the cgroup of the machine whose directory is `dir`, with all that still runs in it, and
/// then the directory. Its state stays, and can be removed by anybody. For whoever finds it with nobody living in it. Returns what is still there.
#[must_use]
pub fn remove(dir: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    if let Ok(name) = fs::read(dir.join(cgroup::FILE)) {
        let group = PathBuf::from(std::ffi::OsString::from_vec(name));
        // The file is in a directory that only we write to, and yet: only our own names.
        let ours = group.file_name().is_some_and(|name| {
            name.as_encoded_bytes()
                .starts_with(cgroup::PREFIX.as_bytes())
        });
        if ours && !cgroup::remove(&group, Duration::from_secs(5)) {
            left.push(group);
        }
    }
    if let Ok(state) = fs::read(dir.join(STATE)) {
        release(&PathBuf::from(std::ffi::OsString::from_vec(state)));
    }
    if remove_tree(dir).is_err() {
        left.push(dir.to_owned());
    }
    left
}

/// Removes the cgroups of containers whose engines are dead, whatever became of their directories.
/// Touches none of another user's, none that a live engine holds, and none with a process in it.
pub fn sweep_cgroups() {
    cgroup::sweep();
}

/// Removes `dir` with all that is in it. A container of NixOS leaves a directory there, `var/empty`,
/// that is marked as immutable: only its start script takes the mark away, and one that was killed
/// did not.
///
/// # Errors
/// Something cannot be removed. That nothing is there is none.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            release(dir);
            fs::remove_dir_all(dir)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Takes the immutable mark from `dir` and all directories and files below it. What it cannot open
/// is not marked, as far as we are concerned: the removal says what is in its way.
fn release(dir: &Path) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(dir, flags, Mode::empty()) else {
        return;
    };
    if let Ok(marks) = rustix::fs::ioctl_getflags(&fd)
        && marks.contains(IFlags::IMMUTABLE)
    {
        _ = rustix::fs::ioctl_setflags(&fd, marks - IFlags::IMMUTABLE);
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type();
        if kind.is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
            release(&entry.path());
        }
    }
}
