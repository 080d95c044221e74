//! Mounts, with the path in the error.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::path_error::{PathContext, PathError};

/// What is at `path`, held whatever covers the path later.
pub(crate) fn handle(path: &Path) -> Result<OwnedFd, PathError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).path(path)
}

/// The name by which the kernel finds what `fd` is, whatever covers its path now.
pub(crate) fn magic(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Binds `source`, and all that is mounted below it, to `target`.
pub(crate) fn bind(source: &OwnedFd, target: &Path) -> Result<(), PathError> {
    rustix::mount::mount_bind_recursive(magic(source), target).path(target)
}

/// Mounts a file system.
pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    options: &str,
) -> Result<(), PathError> {
    let options = CString::new(options)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        .path(target)?;
    rustix::mount::mount(
        source,
        target,
        kind,
        MountFlags::empty(),
        options.as_c_str(),
    )
    .path(target)
}

/// From now on nothing that is mounted here shows in the namespace that ours was copied from, or the
/// other way round.
pub(crate) fn keep_to_ourselves() -> Result<(), PathError> {
    let root = Path::new("/");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(root, private).path(root)
}

/// Makes a directory, if it is not there.
pub(crate) fn make_dir(path: &Path) -> Result<(), PathError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).path(path),
        _ => Ok(()),
    }
}
