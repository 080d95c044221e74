//! Leaving the namespaces of the host.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Gives the calling thread a mount, a network, and a UTS namespace of its own. With the mount
/// namespace goes a root and a working directory of its own: threads made before are not followed,
/// so a process does this before it makes any.
///
/// # Errors
/// The process lacks `CAP_SYS_ADMIN`, or the host's limit of namespaces is reached.
pub fn leave_host() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
    // SAFETY: what is unsafe about unsharing is `FILES`, which makes threads disagree about what a
    // descriptor is. It is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Moves the calling thread into a mount and a network namespace that somebody else made, and there
/// gives it a mount and a UTS namespace of its own: what it mounts is seen by nobody else. To be done
/// before the process makes threads, as [`leave_host`] is.
///
/// # Errors
/// They are no such namespaces, or the process lacks `CAP_SYS_ADMIN` over them.
pub fn enter(mounts: BorrowedFd<'_>, network: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
    move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    // SAFETY: unsharing is unsafe for `FILES` alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWUTS) }?;
    Ok(())
}
