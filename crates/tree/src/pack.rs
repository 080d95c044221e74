//! From a file system to records.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use machinist_wire::Blob;
use machinist_wire::tree::{Entry, MAX_CHUNK, Meta, encode_entry};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek,
    statat,
};
use rustix::io::Errno;

use crate::TreeError;

/// Without blocking: what was a file a moment ago may be a pipe now.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// A directory that is being read.
struct Level {
    fd: OwnedFd,
    path: Blob,
    /// Names still to come, last first.
    names: Vec<OsString>,
}

/// A file that is being read.
struct Open {
    fd: OwnedFd,
    path: Blob,
    at: u64,
    size: u64,
}

/// Walks a file or a directory and makes records of it, a piece at a time.
///
/// The start itself may be a symbolic link, which is followed; below it links are carried as they
/// are. Other file systems that are mounted inside are walked too. Sockets, pipes and devices
/// become [`Entry::Special`], which the receiver reports or skips.
pub struct Packer {
    start: PathBuf,
    levels: Vec<Level>,
    file: Option<Open>,
    /// The first names of files that have more than one.
    linked: HashMap<(u64, u64), Blob>,
    /// Not begun, or all said.
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    New,
    Walking,
    Done,
}

impl Packer {
    /// A packer of `start`.
    ///
    /// # Errors
    /// There is no such file, or it is a socket, pipe, or device.
    pub fn new(start: &Path) -> Result<Self, TreeError> {
        let stat = statat(CWD, start, AtFlags::empty())
            .map_err(|errno| TreeError::io("read", start, errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if let Some(kind) = special(kind) {
            return Err(TreeError::Special {
                path: start.to_owned(),
                kind: kind.to_owned(),
            });
        }
        Ok(Self {
            start: start.to_owned(),
            levels: Vec::new(),
            file: None,
            linked: HashMap::new(),
            state: State::New,
        })
    }

    /// Appends the next records to `out`, not many more than 64 KiB. False once all are said.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn pack(&mut self, out: &mut Vec<u8>) -> Result<bool, TreeError> {
        if self.state == State::Done {
            return Ok(false);
        }
        if self.state == State::New {
            self.state = State::Walking;
            self.begin(out)?;
        }
        let enough = out.len() + MAX_CHUNK as usize;
        while out.len() < enough {
            if self.file.is_some() {
                self.read(out)?;
            } else if !self.advance(out)? {
                out.extend(encode_entry(&Entry::End));
                self.state = State::Done;
                break;
            }
        }
        Ok(true)
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), TreeError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(CWD, &self.start, flags, Mode::empty())
            .map_err(|errno| TreeError::io("open", &self.start, errno))?;
        self.enter(fd, Blob::default(), out)
    }

    /// Takes up the next name of the innermost directory. False at the end of the walk.
    fn advance(&mut self, out: &mut Vec<u8>) -> Result<bool, TreeError> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(false);
        };
        let Some(name) = level.names.pop() else {
            self.levels.pop();
            return Ok(true);
        };
        let path = join(&level.path, &name);
        let stat = match statat(&level.fd, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since the directory was read: as if it had never been there.
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(self.error("read", &path, errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if let Some(kind) = special(kind) {
            let kind = kind.to_owned();
            out.extend(encode_entry(&Entry::Special { path, kind }));
        } else if kind == FileType::Symlink {
            let target = readlinkat(&level.fd, name.as_os_str(), Vec::new())
                .map_err(|errno| self.error("read the link", &path, errno))?;
            out.extend(encode_entry(&Entry::Link {
                path,
                meta: meta(&stat),
                target: target.into_bytes().into(),
            }));
        } else {
            let fd = openat(&level.fd, name.as_os_str(), OPEN, Mode::empty());
            match fd {
                Ok(fd) => self.enter(fd, path, out)?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.error("open", &path, errno)),
            }
        }
        Ok(true)
    }

    /// Takes up a file or directory that is open.
    fn enter(&mut self, fd: OwnedFd, path: Blob, out: &mut Vec<u8>) -> Result<(), TreeError> {
        let stat = fstat(&fd).map_err(|errno| self.error("read", &path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            out.extend(encode_entry(&Entry::Directory {
                path: path.clone(),
                meta: meta(&stat),
            }));
            let names = names(fd.as_fd()).map_err(|errno| self.error("list", &path, errno))?;
            self.levels.push(Level { fd, path, names });
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(original) = self.linked.get(&key).cloned() {
                out.extend(encode_entry(&Entry::HardLink { path, original }));
                return Ok(());
            }
            self.linked.insert(key, path.clone());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        out.extend(encode_entry(&Entry::File {
            path: path.clone(),
            meta: meta(&stat),
            size,
        }));
        self.file = Some(Open {
            fd,
            path,
            at: 0,
            size,
        });
        Ok(())
    }

    /// Reads the next piece of the open file, leaving out holes.
    fn read(&mut self, out: &mut Vec<u8>) -> Result<(), TreeError> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        // Files of `/proc` say 0 and have contents: reading tells the truth.
        if file.size > 0 {
            match next_data(&file.fd, file.at) {
                Some(at) => file.at = at,
                None => {
                    self.file = None;
                    return Ok(());
                }
            }
        }
        let mut buffer = vec![0; MAX_CHUNK as usize];
        match rustix::io::pread(&file.fd, &mut buffer, file.at) {
            Ok(0) => self.file = None,
            Ok(count) => {
                out.extend(encode_entry(&Entry::Data {
                    offset: file.at,
                    length: count as u32,
                }));
                out.extend_from_slice(&buffer[..count]);
                file.at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => {
                let path = file.path.clone();
                return Err(self.error("read", &path, errno));
            }
        }
        Ok(())
    }

    fn error(&self, action: &'static str, path: &Blob, errno: Errno) -> TreeError {
        TreeError::io(action, self.start.join(path.as_path()), errno)
    }
}

/// Where the next bytes are that are not a hole; none at the end.
fn next_data(fd: &OwnedFd, at: u64) -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    match seek(fd, SeekFrom::Data(at)) {
        Ok(at) => return Some(at),
        Err(Errno::NXIO) => return None,
        // A file system that knows nothing of holes.
        Err(_) => {}
    }
    Some(at)
}

fn names(fd: rustix::fd::BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    // In the same order everywhere; taken from the back.
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn join(path: &Blob, name: &OsStr) -> Blob {
    let mut bytes = path.0.clone();
    if !bytes.is_empty() {
        bytes.push(b'/');
    }
    bytes.extend_from_slice(name.as_bytes());
    Blob(bytes)
}

fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::Fifo => Some("pipe"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("device"),
        _ => None,
    }
}

#[cfg_attr(
    target_os = "linux",
    expect(clippy::unnecessary_cast, reason = "the types differ between systems")
)]
fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime as i64,
        mtime_nanos: stat.st_mtime_nsec as u32,
    }
}
