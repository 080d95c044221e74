//! What system calls of the C library's return.

use std::io;

/// The error that a call has left, where its result says that there is one.
pub(crate) fn check(result: impl Into<i64>) -> io::Result<()> {
    match result.into() {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
