//! File descriptors that we were given without having asked for them.

use std::io;

/// The first one that is none of the three streams.
const FIRST: libc::c_uint = 3;

/// Keeps all descriptors but the three streams from the programs that this process starts. What
/// starts us may have let its own slip: whoever waits for the end of one of these would wait for our
/// children, too.
///
/// # Errors
/// The kernel is older than Linux 5.11.
#[cfg(target_os = "linux")]
pub fn keep_from_children() -> io::Result<()> {
    // SAFETY: it takes three numbers. Nothing is closed here, so nobody's descriptor becomes invalid.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    #[test]
    fn children_do_not_get_them() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(file.as_fd(), FdFlags::empty()).unwrap();
        super::keep_from_children().unwrap();
        assert_eq!(fcntl_getfd(file.as_fd()).unwrap(), FdFlags::CLOEXEC);
    }
}
