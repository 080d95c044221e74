//! The kernel's random state.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::ioctl::{Opcode, opcode};

use super::call::check;

// Requests of the kernel's, which libc does not know.
const ADD: Opcode = opcode::write::<[libc::c_int; 2]>(b'R', 3);
const RESEED: Opcode = opcode::none(b'R', 7);

/// The most bytes that are stirred in at once.
const AT_ONCE: usize = 256;

/// `struct rand_pool_info` of the kernel, with as much room as we ever use.
#[repr(C)]
struct Pool {
    /// How much of what follows nobody can guess, in bits.
    entropy: libc::c_int,
    /// Bytes that follow.
    length: libc::c_int,
    bytes: [u8; AT_ONCE],
}

/// Stirs bytes that nobody can guess into the kernel's random state, and makes it anew: what the
/// kernel gives out from now on has nothing to do with what it would have given out. At most 256
/// bytes are taken.
///
/// # Errors
/// The process lacks `CAP_SYS_ADMIN`, or the kernel (before Linux 4.14) cannot be told to begin anew.
pub fn renew(bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(AT_ONCE)];
    let length = libc::c_int::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut pool = Pool {
        entropy: length * 8,
        length,
        bytes: [0; AT_ONCE],
    };
    pool.bytes[..bytes.len()].copy_from_slice(bytes);
    let device = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: `pool` is what this call takes, says how long it is, and lives through the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), ADD as _, &raw const pool) })?;
    // SAFETY: the call takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RESEED as _) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_bytes_from_root_alone() {
        match renew(b"nobody guesses this") {
            Ok(()) => assert!(rustix::process::geteuid().is_root()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        }
    }
}
