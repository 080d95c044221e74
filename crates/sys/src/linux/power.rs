//! The power button of a container.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks a system's init to go off in order: the signal by which systemd takes a pressed power button
/// in a container. Another init than systemd may take it otherwise. One that has ended is no error.
///
/// # Errors
/// The process is not ours to signal.
pub fn press_power_button(init: BorrowedFd<'_>) -> io::Result<()> {
    let signal = libc::SIGRTMIN() + 4;
    // SAFETY: the call takes three numbers and no signal information; the descriptor is open while
    // it is borrowed.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            init.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}
