//! Files that a process was started with.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes the file that was left open for this process under the number `fd` by whoever started it.
/// From then on it closes on exec, as all others do.
///
/// # Errors
/// No such file is open, it is one of the three standard ones, or it is not an inherited one.
pub fn take(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow lasts for two calls that only read and set a flag of the number; where no
    // file is open under it, they fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(borrowed)?;
    // Everything that Rust opens closes on exec; what came through an exec does not. So a file
    // without the flag has no owner in this process, and one that was taken cannot be taken again.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
    // SAFETY: the file is open, and by the flag it had no owner until now.
    Ok(unsafe { OwnedFd::from_raw_fd(borrowed.as_raw_fd()) })
}
