//! The byte stream to the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// A socket or a virtio-serial port, never blocking.
pub(crate) struct Channel {
    fd: OwnedFd,
}

/// What a read gave.
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Later,
    /// The host is not there, or not any more.
    HungUp,
}

impl Channel {
    pub(crate) fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Read {
        match rustix::io::read(&self.fd, buffer) {
            Ok(0) => Read::HungUp,
            Ok(count) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Read::Later,
            Err(_) => Read::HungUp,
        }
    }

    /// Writes what fits; none where the host is gone.
    pub(crate) fn write(&self, bytes: &[u8]) -> Option<usize> {
        match rustix::io::write(&self.fd, bytes) {
            Ok(count) => Some(count),
            Err(Errno::AGAIN | Errno::INTR) => Some(0),
            Err(_) => None,
        }
    }

    /// Whether it is a port that another connection of the host may come through later.
    pub(crate) fn is_port(&self) -> bool {
        rustix::fs::fstat(&self.fd)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
