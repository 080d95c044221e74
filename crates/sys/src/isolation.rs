//! Leaving the namespaces of the host.

use std::io;

use rustix::thread::UnshareFlags;

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
