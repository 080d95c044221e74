//! The agent's virtio-serial port, as a socket on which QEMU listens.
//!
//! QEMU serves one connection at a time, and what was sent to a dead agent must not reach the next.
//! So every agent gets a connection of its own: when the guest closes the port or restarts, the old
//! one is shut down and a new one made, which QEMU takes as soon as it has seen the end of the old.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use machinist_guest::Socket;

use crate::path_error::{PathContext, PathError};
use crate::unique::ShortPath;

/// The host's side of the port.
#[derive(Debug)]
pub(crate) struct AgentPort {
    dir: PathBuf,
    name: String,
    /// The socket is ours, and goes with this.
    ours: bool,
    /// Connected, and not given away.
    spare: Option<UnixStream>,
    /// Another handle of the connection that was given away.
    given: Option<UnixStream>,
}

impl AgentPort {
    /// Makes the socket `name` in `dir`. Returns what QEMU is to listen on. The first connection
    /// waits in its queue until QEMU runs.
    pub(crate) fn new(dir: &Path, name: &str) -> Result<(Self, UnixListener), PathError> {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).path(&path),
            _ => {}
        }
        let short = ShortPath::new(dir).path(dir)?;
        let listener = UnixListener::bind(short.join(name)).path(&path)?;
        let mut port = Self::connect(dir, name).path(&path)?;
        port.ours = true;
        Ok((port, listener))
    }

    /// The port behind the socket `name` in `dir`, on which somebody listens already.
    pub(crate) fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let mut port = Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            ours: false,
            spare: None,
            given: None,
        };
        port.renew()?;
        Ok(port)
    }

    /// Cuts the present connection, and makes the next.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        for old in [self.given.take(), self.spare.take()].into_iter().flatten() {
            // It may be cut already.
            drop(old.shutdown(Shutdown::Both));
        }
        let short = ShortPath::new(&self.dir)?;
        self.spare = Some(UnixStream::connect(short.join(&self.name))?);
        Ok(())
    }

    /// Gives the connection away, unless that has happened.
    pub(crate) fn take(&mut self) -> io::Result<Option<Socket>> {
        let Some(stream) = self.spare.take() else {
            return Ok(None);
        };
        self.given = Some(stream.try_clone()?);
        Socket::new(stream).map(Some)
    }
}

impl Drop for AgentPort {
    fn drop(&mut self) {
        if self.ours {
            // The machine's directory may be gone already.
            drop(std::fs::remove_file(self.dir.join(&self.name)));
        }
    }
}
