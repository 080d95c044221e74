//! What a peer has not read yet.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Whether the peer of a Unix stream socket has read all that was written to it.
///
/// # Errors
/// It is no such socket.
pub fn is_read(socket: impl AsFd) -> io::Result<bool> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: the descriptor lives through the call, and the kernel writes one `int`.
    let result = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::TIOCOUTQ as _,
            std::ptr::from_mut(&mut waiting),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // How much it is, the kernel counts in memory and not in bytes.
    Ok(waiting == 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_waits_is_seen_until_it_is_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_read(&ours).unwrap());
        ours.write_all(b"frame").unwrap();
        assert!(!is_read(&ours).unwrap());
        let mut half = [0; 3];
        theirs.read_exact(&mut half).unwrap();
        assert!(!is_read(&ours).unwrap());
        theirs.read_exact(&mut half[..2]).unwrap();
        assert!(is_read(&ours).unwrap());
        assert!(is_read(std::fs::File::open("/").unwrap()).is_err());
    }
}
