//! What a script keeps in its state directory, as a part of a snapshot: disks that it made, the
//! variables of a firmware, what the guest wrote into a folder that host and guest share.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::path_error::{PathContext, PathError};

/// One thing in a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Below the state directory.
    path: PathBuf,
    what: What,
    mode: u32,
    uid: u32,
    gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Directory,
    /// Its contents are the snapshot's file `disk<N>`.
    File(usize),
    Link(PathBuf),
}

/// A file as it was given back. It is the same for as long as nobody has written to it or put
/// another in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) path: PathBuf,
    stamp: Option<Stamp>,
}

/// What changes when a file is written to, or another takes its name.
type Stamp = (u64, u64, i64, i64, i64, i64);

impl Given {
    /// Whether it is not what it was any more.
    pub(super) fn has_changed(&self) -> bool {
        stamp(&self.path) != self.stamp
    }
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ))
}

/// Whether a state directory has nothing in it that a machine could start from. Sockets are ours.
pub(super) fn is_empty(state: &Path) -> Result<bool, PathError> {
    for entry in fs::read_dir(state).path(state)? {
        let entry = entry.path(state)?;
        if !is_socket(&entry.file_type().path(&entry.path())?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes all that a script made in a state directory that was empty before it.
pub(super) fn clear(state: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(state).path(state)? {
        let entry = entry.path(state)?;
        let path = entry.path();
        let kind = entry.file_type().path(&path)?;
        if is_socket(&kind) {
            continue;
        }
        if kind.is_dir() {
            crate::leftovers::remove_tree(&path).path(&path)?;
        } else {
            fs::remove_file(&path).path(&path)?;
        }
    }
    Ok(())
}

/// Copies what is in `state` into the directory of a snapshot. Nobody may write to it meanwhile.
pub(super) fn freeze(state: &Path, snapshot: &Path) -> Result<Vec<Entry>, PathError> {
    let mut entries = Vec::new();
    let mut directories = vec![PathBuf::new()];
    let mut number = 0;
    while let Some(directory) = directories.pop() {
        let whole = state.join(&directory);
        let mut names: Vec<_> = fs::read_dir(&whole)
            .path(&whole)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()
            .path(&whole)?;
        names.sort_unstable();
        for name in names {
            let path = directory.join(name);
            let from = state.join(&path);
            let found = fs::symlink_metadata(&from).path(&from)?;
            let kind = found.file_type();
            let what = if kind.is_dir() {
                directories.push(path.clone());
                What::Directory
            } else if kind.is_file() {
                let to = snapshot.join(disk(number));
                copy_file(&from, &to)?;
                number += 1;
                What::File(number - 1)
            } else if kind.is_symlink() {
                What::Link(fs::read_link(&from).path(&from)?)
            } else {
                // A socket's other end is not there any more when it comes back.
                continue;
            };
            entries.push(Entry {
                path,
                what,
                mode: found.mode() & 0o7777,
                uid: found.uid(),
                gid: found.gid(),
            });
        }
    }
    Ok(entries)
}

/// Puts all of it back into `state`, which has none of it. Returns the files.
pub(super) fn give_back(
    entries: &[Entry],
    snapshot: &Path,
    state: &Path,
) -> Result<Vec<Given>, PathError> {
    let mut given = Vec::new();
    for entry in entries {
        let to = state.join(&entry.path);
        match &entry.what {
            What::Directory => fs::create_dir(&to).path(&to)?,
            What::File(number) => copy_file(&snapshot.join(disk(*number)), &to)?,
            What::Link(target) => std::os::unix::fs::symlink(target, &to).path(&to)?,
        }
        // Only root gives files away; for anybody else they were the user's own before.
        drop(std::os::unix::fs::lchown(
            &to,
            Some(entry.uid),
            Some(entry.gid),
        ));
        if !matches!(entry.what, What::Link(_)) {
            let mode = fs::Permissions::from_mode(entry.mode);
            fs::set_permissions(&to, mode).path(&to)?;
        }
        if matches!(entry.what, What::File(_)) {
            given.push(Given {
                stamp: stamp(&to),
                path: to,
            });
        }
    }
    Ok(given)
}

fn disk(number: usize) -> String {
    format!("disk{number}")
}

fn is_socket(kind: &fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_socket()
}

fn copy_file(from: &Path, to: &Path) -> Result<(), PathError> {
    let source = File::open(from).path(from)?;
    let mut options = File::options();
    let target = options.write(true).create_new(true).mode(0o600);
    let target = target.open(to).path(to)?;
    copy(&source, &target).path(to)
}

/// Shares the contents where the file system can, and else copies what is not a hole.
fn copy(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        copy_range(from, to, start, at)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut input, mut output) = (start, start);
    while input < end {
        let rest = usize::try_from(end - input).unwrap_or(usize::MAX);
        let ends = (Some(&mut input), Some(&mut output));
        if rustix::fs::copy_file_range(from, ends.0, to, ends.1, rest)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_state_directory_comes_back_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let [state, snapshot, again] = ["state", "snapshot", "again"].map(|name| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        assert!(is_empty(&state).unwrap());
        let socket = UnixListener::bind(state.join("qmp")).unwrap();
        assert!(is_empty(&state).unwrap());
        fs::create_dir(state.join("xchg")).unwrap();
        fs::write(state.join("xchg/note"), "from the guest").unwrap();
        std::os::unix::fs::symlink("xchg/note", state.join("link")).unwrap();
        let disk = File::create(state.join("web.img")).unwrap();
        disk.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&disk, b"data", 1 << 29).unwrap();
        fs::set_permissions(state.join("web.img"), fs::Permissions::from_mode(0o640)).unwrap();

        let entries = freeze(&state, &snapshot).unwrap();
        // Nobody else can read what is frozen, whatever the file's own mode.
        let frozen = fs::metadata(snapshot.join("disk0")).unwrap();
        assert_eq!(frozen.mode() & 0o777, 0o600);
        let text = serde_json::to_string(&entries).unwrap();
        let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
        let given = give_back(&entries, &snapshot, &again).unwrap();

        assert_eq!(
            fs::read(again.join("link")).unwrap(),
            b"from the guest".as_slice()
        );
        let back = fs::metadata(again.join("web.img")).unwrap();
        assert_eq!((back.len(), back.mode() & 0o777), (1 << 30, 0o640));
        assert!(back.blocks() < 1024, "{} blocks", back.blocks());
        let mut word = [0; 4];
        let file = File::open(again.join("web.img")).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut word, 1 << 29).unwrap();
        assert_eq!(&word, b"data");
        assert!(!again.join("qmp").exists());
        drop(socket);

        assert!(given.iter().all(|given| !given.has_changed()));
        fs::write(again.join("web.img"), "another").unwrap();
        let changed: Vec<_> = given.iter().filter(|given| given.has_changed()).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].path, again.join("web.img"));
        clear(&again).unwrap();
        assert!(is_empty(&again).unwrap());
    }
}
