//! Changing files below a root without ever following its links out of it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{At, PathError};

/// A directory that is some other machine's `/`. Paths are absolute there, and so are its links.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> Result<Self, PathError> {
        let fd = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at("open", path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Where it is here, for messages.
    fn here(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat2(
            &self.fd,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens the directory that `path` is in, making it where it is missing.
    fn parent(&self, path: &Path) -> Result<OwnedFd, PathError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut reached = PathBuf::from("/");
        let mut directory = self
            .resolve(&reached, OFlags::DIRECTORY)
            .at("open", &self.path)?;
        for part in parent.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            reached.push(name);
            let here = self.here(&reached);
            directory = match self.resolve(&reached, OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                        .at("create", &here)?;
                    let made = self
                        .resolve(&reached, OFlags::DIRECTORY)
                        .at("open", &here)?;
                    chmod(&made, 0o755).at("set the mode of", &here)?;
                    made
                }
                other => other.at("open", &here)?,
            };
        }
        Ok(directory)
    }

    fn name(path: &Path) -> &Path {
        path.file_name().map_or(path, Path::new)
    }

    /// Removes a file or link. One that is not there is no error.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), PathError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let removed = self
            .resolve(parent, OFlags::DIRECTORY)
            .and_then(|parent| rustix::fs::unlinkat(parent, Self::name(path), AtFlags::empty()));
        match removed {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            other => other.at("remove", &self.here(path)),
        }
    }

    /// Writes a file with these permission bits, in place of whatever was there.
    pub(crate) fn write(&self, path: &Path, mode: u32, contents: &[u8]) -> Result<(), PathError> {
        self.remove(path)?;
        let parent = self.parent(path)?;
        let here = self.here(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, Self::name(path), flags, Mode::from_raw_mode(0o600))
            .at("create", &here)?;
        let mut file = File::from(fd);
        file.write_all(contents).at("write", &here)?;
        chmod(&file, mode).at("set the mode of", &here)
    }

    /// Makes a link, in place of whatever was there.
    pub(crate) fn link(&self, path: &Path, target: &str) -> Result<(), PathError> {
        self.remove(path)?;
        let parent = self.parent(path)?;
        rustix::fs::symlinkat(target, parent, Self::name(path)).at("link", &self.here(path))
    }

    /// What kind of file is there, links not followed. `None` if there is nothing.
    pub(crate) fn kind(&self, path: &Path) -> Option<FileType> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = self.resolve(parent, OFlags::DIRECTORY).ok()?;
        let stat = rustix::fs::statat(parent, Self::name(path), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// The names in a directory; none if it is not there.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<String>, PathError> {
        let directory = match self.resolve(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            other => other.at("open", &self.here(path))?,
        };
        let entries = rustix::fs::Dir::read_from(directory).at("list", &self.here(path))?;
        let names =
            entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// When a file last changed, in nanoseconds since 1970.
    pub(crate) fn modified(&self, path: &Path) -> Option<i128> {
        let file = self.resolve(path, OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(file).ok()?;
        Some(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
    }
}

fn chmod(fd: impl std::os::fd::AsFd, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "untouched").unwrap();
        symlink(outside.path(), inside.path().join("etc")).unwrap();
        symlink(outside.path().join("file"), inside.path().join("file")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        root.write(Path::new("/file"), 0o600, b"mine").unwrap();
        root.write(Path::new("/a/b/c"), 0o4755, b"deep").unwrap();
        // The link's target is not there, seen from inside.
        assert!(root.write(Path::new("/etc/x"), 0o600, b"x").is_err());
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        let deep = fs::metadata(inside.path().join("a/b/c")).unwrap();
        assert_eq!(deep.permissions().mode() & 0o7777, 0o4755);
    }

    #[test]
    fn absolute_links_inside_are_followed_inside() {
        let inside = tempfile::tempdir().unwrap();
        fs::create_dir_all(inside.path().join("usr/lib")).unwrap();
        symlink("/usr/lib", inside.path().join("lib")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        root.write(Path::new("/lib/x"), 0o644, b"x").unwrap();
        assert_eq!(fs::read(inside.path().join("usr/lib/x")).unwrap(), b"x");
        assert_eq!(root.list(Path::new("/lib")).unwrap(), ["x"]);
        root.remove(Path::new("/lib/x")).unwrap();
        root.remove(Path::new("/lib/x")).unwrap();
        assert_eq!(root.kind(Path::new("/lib")), Some(FileType::Symlink));
    }
}
