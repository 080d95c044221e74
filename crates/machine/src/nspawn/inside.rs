//! Writing into a container's root before it runs. An image may have links in any place that lead
//! anywhere: nothing is followed out of the root, and a last link is replaced, not followed.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::mounts::handle;
use crate::path_error::{PathContext, PathError};

/// A container's root. Paths are absolute there.
#[derive(Debug)]
pub(super) struct Inside {
    root: OwnedFd,
}

impl Inside {
    /// The one that is mounted at `root`.
    pub(super) fn open(root: &Path) -> Result<Self, PathError> {
        Ok(Self {
            root: handle(root)?,
        })
    }

    fn resolve(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    }

    /// The directory that `path` is in, made where it is missing: an image may be all but empty.
    fn parent(&self, path: &Path) -> Result<OwnedFd, PathError> {
        let mut reached = PathBuf::from("/");
        let mut directory = self.resolve(&reached).path(&reached)?;
        for part in path.parent().unwrap_or(Path::new("/")).components() {
            let Component::Normal(name) = part else {
                continue;
            };
            reached.push(name);
            directory = match self.resolve(&reached) {
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    rustix::fs::mkdirat(&directory, name, mode).path(&reached)?;
                    self.resolve(&reached)
                }
                other => other,
            }
            .path(&reached)?;
        }
        Ok(directory)
    }

    /// The directory for `path` and its name there, with nothing at it.
    fn place<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a Path), PathError> {
        let directory = self.parent(path)?;
        let name = path.file_name().map_or(path, Path::new);
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((directory, name)),
            Err(error) => Err(error).path(path),
        }
    }

    /// Writes a file that all may read, in place of whatever was there.
    pub(super) fn write(&self, path: &Path, contents: &str) -> Result<(), PathError> {
        let (directory, name) = self.place(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).path(path)?;
        fs::File::from(file)
            .write_all(contents.as_bytes())
            .path(path)
    }

    /// Makes a link, in place of whatever was there.
    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<(), PathError> {
        let (directory, name) = self.place(path)?;
        rustix::fs::symlinkat(target, directory, name).path(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "untouched").unwrap();
        symlink(outside.path(), root.path().join("etc")).unwrap();
        symlink(outside.path().join("file"), root.path().join("last")).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert!(inside.write(Path::new("/etc/hosts"), "x").is_err());
        inside.write(Path::new("/last"), "mine").unwrap();
        inside.write(Path::new("/a/b/c"), "deep").unwrap();
        inside.link(Path::new("/a/link"), Path::new("b/c")).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(
            (read("last"), read("a/link")),
            ("mine".into(), "deep".into())
        );
        let file = fs::read_to_string(outside.path().join("file")).unwrap();
        assert_eq!(file, "untouched");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
