//! The directory, with the socket that clients connect to.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::vde::LONGEST_DIRECTORY;

/// What the names of our ends of clients' ports begin with.
pub(crate) const PORT: &str = "port";

/// Why VDE clients cannot be served in a directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Clients would not find sockets in it: a socket's path has room for 107 bytes.
    #[error(
        "the path of the directory {} is {length} bytes long, and VDE clients find their sockets \
         only in directories of up to {LONGEST_DIRECTORY} bytes (a shorter runtime directory helps)",
        path.display()
    )]
    TooLong {
        /// The directory, without links in its path.
        path: PathBuf,
        /// How long that is, in bytes.
        length: usize,
    },
    /// Somebody answers there.
    #[error("another process serves VDE clients in {}", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or the socket in it cannot be made.
    #[error("cannot serve VDE clients in {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A directory of mode 0700 with a socket `ctl`, of mode 0600. At the end it holds no sockets, and
/// is removed if it was made here.
#[derive(Debug)]
pub(crate) struct Directory {
    listener: UnixListener,
    /// A descriptor to give up when there are no others: so that a client can be let in, and be
    /// sent away, which is better for it than to wait for ever.
    spare: Option<File>,
    /// Declared after the listener, so that nobody can connect any more while it is removed.
    path: Remains,
}

/// What is to be removed at the end.
#[derive(Debug)]
struct Remains {
    path: Arc<Path>,
    /// The directory was not there before.
    made: bool,
    /// The sockets in it are ours, or nobody's.
    ours: bool,
}

impl Directory {
    /// Makes the directory, if it is not there, and listens in it. A socket that a process left
    /// which is no more is replaced.
    pub fn new(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Make {
            path: path.to_owned(),
            source,
        };
        let made = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(error)),
        };
        // Removed again where something goes wrong from here on.
        let mut remains = Remains {
            path: path.into(),
            made,
            ours: false,
        };
        // Clients take links out of the path, too.
        let real = fs::canonicalize(path).map_err(failed)?;
        let length = real.as_os_str().as_bytes().len();
        if length > LONGEST_DIRECTORY {
            return Err(DirectoryError::TooLong { path: real, length });
        }
        let ctl = real.join("ctl");
        if UnixStream::connect(&ctl).is_ok() {
            return Err(DirectoryError::Taken { path: real });
        }
        sweep(&real);
        fs::set_permissions(&real, Permissions::from_mode(0o700)).map_err(failed)?;
        let listener = UnixListener::bind(&ctl).map_err(failed)?;
        remains.path = real.into();
        remains.ours = true;
        let limited = fs::set_permissions(&ctl, Permissions::from_mode(0o600));
        limited
            .and_then(|()| listener.set_nonblocking(true))
            .map_err(failed)?;
        Ok(Self {
            listener,
            spare: spare(),
            path: remains,
        })
    }

    /// The directory, without links in its path.
    pub const fn path(&self) -> &Arc<Path> {
        &self.path.path
    }

    /// The next client, if one waits. With an error it was sent away, or could not even be that:
    /// then [`Directory::is_crowded`].
    pub fn accept(&mut self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((client, _)) => Ok(Some(client)),
            Err(error) if is_nobody(&error) => Ok(None),
            Err(error) => {
                if is_no_room(&error) && self.spare.take().is_some() {
                    drop(self.listener.accept());
                    self.spare = spare();
                }
                Err(error)
            }
        }
    }

    /// Whether there is no descriptor left even to send a client away with.
    pub const fn is_crowded(&self) -> bool {
        self.spare.is_none()
    }

    /// Ends that there [is none](Directory::is_crowded), if possible. Returns whether it was so.
    pub fn make_room(&mut self) -> bool {
        let was_crowded = self.is_crowded();
        if was_crowded {
            self.spare = spare();
        }
        was_crowded
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if self.ours {
            sweep(&self.path);
        }
        if self.made {
            // It stays if somebody has put anything else there.
            drop(fs::remove_dir(&self.path));
        }
    }
}

/// Removes the sockets that a switch and its clients have made in a directory.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name == "ctl" || name.as_bytes().starts_with(PORT.as_bytes());
        let theirs = name.as_bytes().starts_with(b".");
        if (ours || theirs) && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            // Clients remove theirs, too.
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn spare() -> Option<File> {
    File::open("/").ok()
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn is_no_room(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == number)
}
