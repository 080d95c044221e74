//! A user namespace in which an ordinary user is root.
//!
//! Which ids a user may have beside their own, the system's administrator says; two programs that
//! run as root, newuidmap(1) and newgidmap(1), write them into the namespace. They have to be
//! children of somebody outside of it, so they are started (but wait) before we enter.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::id_map::IdRange;

/// One of the two kinds of ids, and who maps them.
#[derive(Debug, Clone, Copy)]
pub struct IdMap<'a> {
    /// newuidmap(1) or newgidmap(1).
    pub mapper: &'a Path,
    /// What is mapped. Nothing outside of these exists inside.
    pub ranges: &'a [IdRange],
}

/// There is no user namespace for us.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The programs that map ids could not be started or listened to.
    #[error("cannot run newuidmap and newgidmap")]
    Run(#[source] io::Error),
    /// The kernel makes none.
    #[error("the kernel makes no user namespace")]
    Kernel(#[source] io::Error),
    /// The ids could not be mapped.
    #[error("the ids cannot be mapped: {said}")]
    Map {
        /// What newuidmap or newgidmap said.
        said: String,
    },
}

/// What waits for a line before it maps: `$1` and `$3` are programs, `$2` and `$4` their arguments.
const MAP: &str = "read -r go && \"$1\" $2 && \"$3\" $4";

/// Moves this process, which must have one thread, into a user namespace and a mount namespace of
/// its own. With `inside: 0` for its own ids it is root there. Mounts of the outside come in, none
/// goes out.
///
/// # Errors
/// It may not have one, or not with these ids. After [`UserNamespaceError::Map`] it is in a namespace
/// in which it can do nothing, and has to end: try it in a child first.
pub fn enter(uids: IdMap<'_>, gids: IdMap<'_>) -> Result<(), UserNamespaceError> {
    let mut mapper = start_mapper(uids, gids).map_err(UserNamespaceError::Run)?;
    // SAFETY: unsharing is unsafe for `FILES` alone.
    let unshared =
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) };
    if let Err(error) = unshared {
        // It reads the end of its input, and ends.
        drop(mapper.stdin.take());
        drop(mapper.wait());
        return Err(UserNamespaceError::Kernel(explained(error)));
    }
    if let Some(mut go) = mapper.stdin.take() {
        // A mapper that is gone says why below.
        drop(go.write_all(b"go\n"));
    }
    let ended = mapper.wait_with_output().map_err(UserNamespaceError::Run)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(UserNamespaceError::Map {
        said: said.trim().replace('\n', "; "),
    })
}

fn start_mapper(uids: IdMap<'_>, gids: IdMap<'_>) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", MAP, "sh"])
        .arg(uids.mapper)
        .arg(numbers(uids.ranges))
        .arg(gids.mapper)
        .arg(numbers(gids.ranges))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Our process id and the ranges, as both mappers want them.
fn numbers(ranges: &[IdRange]) -> String {
    let mut text = std::process::id().to_string();
    for range in ranges {
        let IdRange {
            inside,
            outside,
            count,
        } = range;
        // Writing to a string cannot fail.
        _ = write!(text, " {inside} {outside} {count}");
    }
    text
}

/// The kernel's few words say little here.
fn explained(error: Errno) -> io::Error {
    match error {
        Errno::NOSPC => io::Error::other("the limit user.max_user_namespaces is reached"),
        Errno::INVAL => io::Error::other("it has none, or this process has several threads"),
        Errno::PERM => io::Error::other("this host forbids them to ordinary users"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappers_arguments() {
        let ranges = [(0, 1000, 1), (1, 100_000, 65_535)].map(|(inside, outside, count)| IdRange {
            inside,
            outside,
            count,
        });
        let expected = format!("{} 0 1000 1 1 100000 65535", std::process::id());
        assert_eq!(numbers(&ranges), expected);
    }
}
