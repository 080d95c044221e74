//! What a container has written to its root: saved while it stands still, and laid under another
//! start.
//!
//! It is all in the upper layer of its overlay, which is in memory, in a mount namespace that only
//! its launcher and its supervisor see. It is kept as one file, an archive that GNU tar makes: other
//! users' ids, device numbers and extended attributes, by which overlayfs notes what is gone, are in
//! it, and not on a file system of the host that might not take them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::plan::{STAGE, search_path};
use crate::mounts::{handle, magic};
use crate::path_error::PathError;
use crate::search;

/// What saving a container needs of one that runs.
#[derive(Debug, Clone)]
pub(crate) struct Footing {
    /// Its launcher: the process in whose mount namespace its layers are.
    pub(crate) launcher: u32,
    /// The directory of its cgroup, where it has one.
    pub(crate) cgroup: Option<PathBuf>,
    /// Where programs are looked for, as in `PATH`.
    pub(crate) search: OsString,
}

impl Footing {
    /// The upper layer of its root. It is the same as long as this is held.
    pub(crate) fn upper(&self) -> Result<OwnedFd, PathError> {
        let path = format!("/proc/{}/root{STAGE}/upper", self.launcher);
        handle(Path::new(&path))
    }
}

/// The program that packs and unpacks.
pub(crate) fn tar(search: &OsStr) -> io::Result<PathBuf> {
    let lacking = || io::Error::new(io::ErrorKind::NotFound, "the host has no tar");
    search::find(search, "tar").ok_or_else(lacking)
}

/// Writes what is in the directory `upper` to `archive`. Blocks.
pub(crate) fn pack(tar: &Path, upper: &OwnedFd, archive: File) -> io::Result<()> {
    let mut command = Command::new(tar);
    command
        // Whatever is a socket was one of a program that will not be there any more.
        .args(["--create", "--format=pax", "--warning=no-file-ignored"])
        .args(COMMON)
        .arg(".")
        .stdin(Stdio::null())
        .stdout(archive);
    perform(command, upper)
}

/// Puts what `archive` has into the directory `upper`. Blocks.
pub(super) fn unpack(tar: &Path, archive: File, upper: &OwnedFd) -> io::Result<()> {
    let mut command = Command::new(tar);
    command
        .args(["--extract", "--same-owner", "--preserve-permissions"])
        .args(COMMON)
        .stdin(archive)
        .stdout(Stdio::null());
    perform(command, upper)
}

const COMMON: [&str; 6] = [
    "--file=-",
    "--numeric-owner",
    "--sparse",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
];

fn perform(mut command: Command, directory: &OwnedFd) -> io::Result<()> {
    let output = command
        .current_dir(magic(directory))
        .env_clear()
        .env("PATH", search_path(OsStr::new("")))
        .env("LC_ALL", "C")
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    // A tar that cannot keep extended attributes says so, and ends well.
    if output.status.success() && output.stderr.is_empty() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("tar failed");
    Err(io::Error::other(first.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = from.path();
        fs::create_dir(inside.join("etc")).unwrap();
        fs::write(inside.join("etc/motd"), "hello").unwrap();
        fs::hard_link(inside.join("etc/motd"), inside.join("other")).unwrap();
        std::os::unix::fs::symlink("/etc/motd", inside.join("link")).unwrap();
        fs::set_permissions(inside.join("other"), fs::Permissions::from_mode(0o4711)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(inside.join("socket")).unwrap());
        let sparse = File::create(inside.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();

        let tar = tar(OsStr::new("")).unwrap();
        let archive = tempfile::NamedTempFile::new().unwrap();
        pack(&tar, &handle(inside).unwrap(), archive.reopen().unwrap()).unwrap();
        assert!(archive.path().metadata().unwrap().len() < 1 << 20);
        let target = handle(to.path()).unwrap();
        unpack(&tar, archive.reopen().unwrap(), &target).unwrap();

        let found = |name: &str| to.path().join(name);
        assert_eq!(fs::read_to_string(found("etc/motd")).unwrap(), "hello");
        let (one, other) = (found("etc/motd").metadata(), found("other").metadata());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.ino(), one.mode() & 0o7777), (other.ino(), 0o4711));
        let link = fs::read_link(found("link")).unwrap();
        assert_eq!(link, Path::new("/etc/motd"));
        assert_eq!(found("sparse").metadata().unwrap().len(), 1 << 30);
        assert!(!found("socket").exists());
    }

    #[test]
    fn an_archive_that_is_cut_off_is_an_error() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("file"), vec![1; 1 << 16]).unwrap();
        let tar = tar(OsStr::new("")).unwrap();
        let archive = tempfile::NamedTempFile::new().unwrap();
        let source = handle(from.path()).unwrap();
        pack(&tar, &source, archive.reopen().unwrap()).unwrap();
        archive.as_file().set_len(1 << 15).unwrap();
        let target = handle(to.path()).unwrap();
        let error = unpack(&tar, archive.reopen().unwrap(), &target).unwrap_err();
        assert!(error.to_string().contains("EOF"), "{error}");
    }
}
