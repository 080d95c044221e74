//! From records to a file system.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use machinist_wire::Blob;
use machinist_wire::tree::{Decoder, Entry, Item, Meta};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    ftruncate, futimens, linkat, mkdirat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::TreeError;
use crate::path::components;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// What of a file's attributes is taken over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Owner and group, by number.
    pub owners: bool,
    /// The set-user-id, set-group-id and sticky bits. A host never takes those of a guest.
    pub privileged_modes: bool,
}

/// A tree with more directories than this is meant to use up memory. So is one with more things that
/// cannot be carried; of those the first are told.
const MOST_DIRECTORIES: usize = 1_000_000;
const MOST_SKIPPED: usize = 1000;

struct Open {
    fd: OwnedFd,
    path: Blob,
    meta: Meta,
    size: u64,
    /// Where the next contents go, and how many bytes of them are still announced.
    at: u64,
}

/// Puts a tree where it belongs. Files that are in the way are replaced, directories are merged.
pub struct Unpacker {
    /// The directory that the root of the tree is put into.
    base: OwnedFd,
    /// The name of the root in it.
    name: OsString,
    /// For messages alone.
    shown: PathBuf,
    options: Options,
    decoder: Decoder,
    /// The directory that was last put something into.
    parent: Option<(Vec<OsString>, OwnedFd)>,
    file: Option<Open>,
    /// Directories get their attributes last: a read-only one could not be filled.
    directories: Vec<(Blob, Meta)>,
    /// What was not carried.
    skipped: Vec<(Blob, String)>,
    started: bool,
    ended: bool,
}

impl Unpacker {
    /// An unpacker into `target`, which belongs to the caller and may contain links. Where it is
    /// a directory already, the tree goes into it as `name`, as `cp` does; else it becomes the
    /// tree. Missing parents are made.
    ///
    /// # Errors
    /// The target cannot be reached.
    pub fn new(target: &Path, name: &OsStr, options: Options) -> Result<Self, TreeError> {
        let (directory, name) = match (target.is_dir(), target.file_name()) {
            (false, Some(last)) => (target.parent().unwrap_or(Path::new("/")), last),
            _ => (target, name),
        };
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| TreeError::io("make the directory", directory, error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = openat(CWD, directory, flags, Mode::empty())
            .map_err(|errno| TreeError::io("open", directory, errno))?;
        let blob = Blob::from(name);
        if components(&blob)?.len() != 1 {
            return Err(TreeError::BadPath { path: blob });
        }
        Ok(Self {
            base,
            name: name.to_owned(),
            shown: directory.join(name),
            options,
            decoder: Decoder::default(),
            parent: None,
            file: None,
            directories: Vec::new(),
            skipped: Vec::new(),
            started: false,
            ended: false,
        })
    }

    /// Takes bytes of the lane that carries the tree.
    ///
    /// # Errors
    /// The tree is not one, or leads out of its place, or the file system refuses.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.decoder.push(bytes);
        while let Some(item) = self.decoder.next_item()? {
            if self.ended {
                return Err(TreeError::Broken {
                    what: "records after the end",
                });
            }
            match item {
                Item::Entry(entry) => self.entry(entry)?,
                Item::Contents(bytes) => self.contents(&bytes)?,
            }
        }
        Ok(())
    }

    /// No more bytes come.
    ///
    /// # Errors
    /// The tree is not complete.
    pub fn finish(&mut self) -> Result<(), TreeError> {
        match self.ended {
            true => Ok(()),
            false => Err(TreeError::Broken {
                what: "it ends too early",
            }),
        }
    }

    /// Sockets, pipes and devices that were not carried: where they are in the tree, and what.
    #[must_use]
    pub fn skipped(&self) -> &[(Blob, String)] {
        &self.skipped
    }

    /// Where the tree was put.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.shown
    }

    fn entry(&mut self, entry: Entry) -> Result<(), TreeError> {
        if let Entry::Data { offset, .. } = entry {
            let what = "contents without a file";
            let file = self.file.as_mut().ok_or(TreeError::Broken { what })?;
            file.at = offset;
            return Ok(());
        }
        self.close_file()?;
        match entry {
            Entry::Directory { path, meta } => {
                self.first(&path)?;
                self.directory(&path)?;
                if self.directories.len() >= MOST_DIRECTORIES {
                    return Err(TreeError::Broken {
                        what: "it has too many directories",
                    });
                }
                self.directories.push((path, meta));
            }
            Entry::File { path, meta, size } => {
                self.first(&path)?;
                self.create(path, meta, size)?;
            }
            Entry::Link { path, meta, target } => {
                self.first(&path)?;
                self.link(&path, &meta, &target)?;
            }
            Entry::HardLink { path, original } => self.hard_link(&path, &original)?,
            Entry::Special { path, kind } => {
                if self.skipped.len() < MOST_SKIPPED {
                    self.skipped.push((path, kind));
                }
            }
            Entry::End => self.complete()?,
            Entry::Data { .. } => {}
        }
        Ok(())
    }

    /// The root comes first, and only once.
    fn first(&mut self, path: &Blob) -> Result<(), TreeError> {
        let first = !std::mem::replace(&mut self.started, true);
        match first == path.0.is_empty() {
            true => Ok(()),
            false => Err(TreeError::Broken {
                what: "its root is not first",
            }),
        }
    }

    /// Splits a path into the directory that it is in, open, and its name there.
    fn locate(&mut self, path: &Blob) -> Result<(BorrowedFd<'_>, OsString), TreeError> {
        let components = components(path)?;
        let Some((name, directories)) = components.split_last() else {
            return Ok((self.base.as_fd(), self.name.clone()));
        };
        let (name, wanted) = ((*name).to_owned(), directories);
        let known = self
            .parent
            .as_ref()
            .is_some_and(|(known, _)| known.iter().eq(wanted));
        if !known {
            let fd = self.descend(wanted)?;
            let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
            self.parent = Some((wanted, fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok((fd.as_fd(), name)),
            None => Ok((self.base.as_fd(), name)),
        }
    }

    /// Opens a directory of the tree, one component at a time and never through a link.
    fn descend(&self, components: &[&OsStr]) -> Result<OwnedFd, TreeError> {
        let mut shown = self.shown.clone();
        let open = |parent: BorrowedFd<'_>, name: &OsStr, shown: &Path| {
            openat(parent, name, DIRECTORY, Mode::empty())
                .map_err(|errno| TreeError::io("enter", shown, errno))
        };
        let mut fd = open(self.base.as_fd(), &self.name, &shown)?;
        for name in components {
            shown.push(name);
            fd = open(fd.as_fd(), name, &shown)?;
        }
        Ok(fd)
    }

    fn shown(&self, path: &Blob) -> PathBuf {
        match path.0.is_empty() {
            true => self.shown.clone(),
            false => self.shown.join(path.as_path()),
        }
    }

    fn directory(&mut self, path: &Blob) -> Result<(), TreeError> {
        let shown = self.shown(path);
        let (parent, name) = self.locate(path)?;
        let made = match mkdirat(parent, &name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW);
                let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
                match kind {
                    Ok(FileType::Directory) => Ok(()),
                    Ok(_) => unlinkat(parent, &name, AtFlags::empty())
                        .and_then(|()| mkdirat(parent, &name, Mode::RWXU)),
                    Err(errno) => Err(errno),
                }
            }
            made => made,
        };
        made.map_err(|errno| TreeError::io("make the directory", shown, errno))
    }

    fn create(&mut self, path: Blob, meta: Meta, size: u64) -> Result<(), TreeError> {
        let shown = self.shown(&path);
        let (parent, name) = self.locate(&path)?;
        // A new file, never one that is there: that may be a link, or in use.
        remove(parent, &name).map_err(|errno| TreeError::io("replace", &shown, errno))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(
            parent,
            &name,
            flags | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|errno| TreeError::io("make", &shown, errno))?;
        self.file = Some(Open {
            fd,
            path,
            meta,
            size,
            at: 0,
        });
        Ok(())
    }

    fn contents(&mut self, mut bytes: &[u8]) -> Result<(), TreeError> {
        let shown = self.file.as_ref().map(|file| self.shown(&file.path));
        let (Some(file), Some(shown)) = (&mut self.file, shown) else {
            return Ok(());
        };
        while !bytes.is_empty() {
            match rustix::io::pwrite(&file.fd, bytes, file.at) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    file.at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(TreeError::io("write", shown, errno)),
            }
        }
        // A file may have grown while it was read, or say 0 as those of `/proc` do.
        file.size = file.size.max(file.at);
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), TreeError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        ftruncate(&file.fd, file.size)
            .and_then(|()| self.dress(file.fd.as_fd(), &file.meta))
            .map_err(|errno| TreeError::io("finish", self.shown(&file.path), errno))
    }

    fn link(&mut self, path: &Blob, meta: &Meta, target: &Blob) -> Result<(), TreeError> {
        let shown = self.shown(path);
        let owners = self.options.owners;
        let (parent, name) = self.locate(path)?;
        let times = times(meta);
        remove(parent, &name)
            .and_then(|()| symlinkat(target.as_os_str(), parent, &name))
            .and_then(|()| match owners {
                true => {
                    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    chownat(parent, &name, Some(uid), Some(gid), flags)
                }
                false => Ok(()),
            })
            .and_then(|()| utimensat(parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| TreeError::io("make the link", shown, errno))
    }

    fn hard_link(&mut self, path: &Blob, original: &Blob) -> Result<(), TreeError> {
        let shown = self.shown(path);
        if path.0.is_empty() || !self.started {
            return Err(TreeError::Broken {
                what: "its root is not first",
            });
        }
        let components = components(original)?;
        let Some((last, directories)) = components.split_last() else {
            return Err(TreeError::BadPath {
                path: original.clone(),
            });
        };
        let from = self.descend(directories)?;
        let (parent, name) = self.locate(path)?;
        // Without flags a link is linked itself, not what it points to.
        remove(parent, &name)
            .and_then(|()| linkat(&from, *last, parent, &name, AtFlags::empty()))
            .map_err(|errno| TreeError::io("link", shown, errno))
    }

    fn complete(&mut self) -> Result<(), TreeError> {
        if !self.started {
            return Err(TreeError::Broken {
                what: "it is empty",
            });
        }
        while let Some((path, meta)) = self.directories.pop() {
            let components = components(&path)?;
            self.descend(&components).and_then(|fd| {
                self.dress(fd.as_fd(), &meta)
                    .map_err(|errno| TreeError::io("finish", self.shown(&path), errno))
            })?;
        }
        self.ended = true;
        Ok(())
    }

    /// Gives a file its attributes. The owner first: changing it takes set-user-id bits away.
    fn dress(&self, fd: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<()> {
        if self.options.owners {
            fchown(
                fd,
                Some(Uid::from_raw(meta.uid)),
                Some(Gid::from_raw(meta.gid)),
            )?;
        }
        let mask = match self.options.privileged_modes {
            true => 0o7777,
            false => 0o777,
        };
        fchmod(fd, Mode::from_bits_truncate((meta.mode & mask) as _))?;
        futimens(fd, &times(meta))
    }
}

/// Makes room for something that is not a directory.
fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime,
        tv_nsec: i64::from(meta.mtime_nanos.min(999_999_999)),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
