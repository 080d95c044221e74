//! Programs of the host.

use std::ffi::OsStr;
use std::path::PathBuf;

/// Where `program` is: in one of the directories of `search`, which is as `PATH`, or where the
/// system's programs are.
pub(crate) fn find(search: &OsStr, program: &str) -> Option<PathBuf> {
    // Where administrators' programs are, a user's PATH may not lead.
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(search)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
