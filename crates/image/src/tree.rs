//! Directory trees: measuring, fingerprinting, removing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use crate::error::{At, PathError};
use crate::key::Recipe;
use crate::tool;

/// What to do about a directory that may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Fail,
    PassOver,
}

/// Calls `visit` for everything below `root`, in the same order every time, without leaving its file
/// system. What vanishes meanwhile is passed over.
pub(crate) fn walk(
    root: &Path,
    unreadable: Unreadable,
    visit: &mut dyn FnMut(&Path, &Metadata) -> Result<(), PathError>,
) -> Result<(), PathError> {
    let device = fs::metadata(root).at("read", root)?.dev();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let mut names: Vec<OsString> = match fs::read_dir(&directory) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()
                .at("list", &directory)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && unreadable == Unreadable::PassOver =>
            {
                continue;
            }
            Err(error) => return Err(error).at("list", &directory),
        };
        names.sort();
        for name in names {
            let path = directory.join(name);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).at("read", &path),
            };
            visit(&path, &metadata)?;
            if metadata.is_dir() && metadata.dev() == device {
                todo.push(path);
            }
        }
    }
    Ok(())
}

/// Bytes on disk, hard links counted once. An ordinary user cannot look into all directories of an
/// image; there is next to nothing in those.
pub(crate) fn size(root: &Path) -> Result<u64, PathError> {
    let mut seen = HashSet::new();
    let mut total = 0;
    walk(root, Unreadable::PassOver, &mut |_, metadata| {
        if metadata.nlink() == 1 || metadata.is_dir() || seen.insert(metadata.ino()) {
            total += metadata.blocks() * 512;
        }
        Ok(())
    })?;
    Ok(total)
}

/// Puts into `recipe` what tells a tree from a changed one: names, kinds, owners, modes, sizes,
/// times of change. The contents are not read. (The change time cannot be set back, unlike the
/// modification time.)
pub(crate) fn fingerprint(root: &Path, recipe: &mut Recipe) -> Result<(), PathError> {
    recipe.field("root", root.as_os_str().as_bytes());
    walk(root, Unreadable::Fail, &mut |path, metadata| {
        recipe.field("path", path.as_os_str().as_bytes());
        let mut facts = Vec::with_capacity(64);
        let mut fact = |value: u64| facts.extend_from_slice(&value.to_be_bytes());
        fact(metadata.mode().into());
        fact(metadata.uid().into());
        fact(metadata.gid().into());
        fact(metadata.rdev());
        // A directory's own size and times say nothing that its entries do not.
        if !metadata.is_dir() {
            fact(metadata.ino());
            fact(metadata.size());
            fact(metadata.mtime().cast_unsigned());
            fact(metadata.mtime_nsec().cast_unsigned());
            fact(metadata.ctime().cast_unsigned());
            fact(metadata.ctime_nsec().cast_unsigned());
        }
        recipe.field("facts", &facts);
        Ok(())
    })
}

/// Removes a tree that a builder left. Whatever is mounted below it is taken off first: a builder
/// mounts the host's `/dev` there, and we never reach into that.
pub(crate) fn remove(root: &Path) -> Result<(), PathError> {
    for mounted in mounts_below(root)? {
        rustix::mount::unmount(&mounted, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .at("unmount", &mounted)?;
    }
    // Processes of a killed builder may need a moment to die, and make files until then.
    let mut last = Ok(());
    for attempt in 0..20 {
        last = fs::remove_dir_all(root);
        match &last {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return tool::remove_mapped(root).at("remove", root);
            }
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => break,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5 << (attempt / 4))),
        }
    }
    last.at("remove", root)
}

/// What is mounted below `root` (itself included), deepest first.
fn mounts_below(root: &Path) -> Result<Vec<PathBuf>, PathError> {
    let root = match fs::canonicalize(root) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("find", root),
    };
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).at("read", table)?;
    let mut found: Vec<PathBuf> = text
        .split(|&byte| byte == b'\n')
        .filter_map(mount_point)
        .filter(|path| path.starts_with(&root))
        .collect();
    found.reverse();
    Ok(found)
}

/// The fifth field of a line of mountinfo (proc(5)), its octal escapes resolved.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|&byte| byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(first);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt 2\")));
        assert_eq!(mount_point(b""), None);
    }

    #[test]
    fn a_fingerprint_sees_changes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let key = || {
            let mut recipe = Recipe::new("test", 1);
            fingerprint(dir.path(), &mut recipe).unwrap();
            recipe.key()
        };
        let before = key();
        assert_eq!(before, key());
        fs::create_dir(dir.path().join("b")).unwrap();
        let with_directory = key();
        assert_ne!(before, with_directory);
        fs::remove_file(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(with_directory, key());
    }
}
