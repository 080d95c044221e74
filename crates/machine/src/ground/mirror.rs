//! A directory that can be written to in place of one that must not be.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};

use crate::mounts::{bind, handle, magic, mount};
use crate::path_error::{PathContext, PathError};

/// Covers the directory `dir` by an empty one in memory, and puts into that what the old one has: its
/// links as they are, everything else bound. What is named in `but` is left out. Only the mount
/// namespace that we are in sees any of this.
pub(super) fn mirror(dir: &Path, but: &[&str]) -> Result<(), PathError> {
    let old = handle(dir)?;
    let mode = rustix::fs::fstat(&old).path(dir)?.st_mode & 0o7777;
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).path(dir)? {
        names.push(entry.path(dir)?.file_name());
    }
    mount("tmpfs", dir, "tmpfs", &format!("mode={mode:o}"))?;
    for name in names {
        if !but.iter().any(|hidden| name == *hidden) {
            // What cannot be bound (it may be gone by now, or be nobody's) is left out, too.
            drop(again(&old, &name, &dir.join(&name)));
        }
    }
    Ok(())
}

/// Puts the entry `name` of `old` at `place`.
fn again(old: &OwnedFd, name: &OsString, place: &Path) -> Result<(), PathError> {
    let stat = rustix::fs::statat(old, name, AtFlags::SYMLINK_NOFOLLOW).path(place)?;
    let source = magic(old).join(name);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = fs::read_link(&source).path(&source)?;
            return std::os::unix::fs::symlink(target, place).path(place);
        }
        FileType::Directory => {
            fs::create_dir(place).path(place)?;
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::chmod(place, mode).path(place)?;
        }
        _ => drop(fs::File::create(place).path(place)?),
    }
    let bound = handle(&source).and_then(|source| bind(&source, place));
    if bound.is_err() {
        // An empty thing in its place would say something that is not true.
        drop(fs::remove_dir(place).or_else(|_| fs::remove_file(place)));
    }
    bound
}
