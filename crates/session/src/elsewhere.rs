//! Sessions that are not under our runtime directory: those of other directories, and those inside
//! of other mount namespaces, such as a Nix build.
//!
//! Each session has a guard, whose arguments name the session's directory. So all of them are found
//! by their guards, as far as we may look into those: root may look into all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::directory::{self, Found};
use crate::guard;

/// The live sessions of this host whose guards we see. A path may lead through another process's
/// root, and holds as long as that session lives.
#[must_use]
pub fn sessions_elsewhere() -> Vec<Found> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let guarded = processes.filter_map(|process| guarded(&process.path()));
    let mut found: Vec<Found> = Vec::new();
    for path in guarded {
        let live = directory::live_session(&path).ok().flatten();
        let known = |live: &Found| {
            found
                .iter()
                .any(|other| other.card.session == live.card.session)
        };
        if let Some(live) = live.filter(|live| !known(live)) {
            found.push(live);
        }
    }
    found
}

/// The session that a process guards, by a path that leads to it from here.
fn guarded(process: &Path) -> Option<PathBuf> {
    let arguments = fs::read(process.join("cmdline")).ok()?;
    let session = session_of(&arguments)?;
    let within = process.join("root").join(session.strip_prefix("/").ok()?);
    // Links there would lead to places here.
    let root = fs::File::open(process.join("root")).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let relative = session.strip_prefix("/").ok()?;
    rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve).ok()?;
    // The short path, where it means the same to us.
    let identity = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let there = identity(&within)?;
    Some(if identity(session) == Some(there) {
        session.to_owned()
    } else {
        within
    })
}

/// The session's directory, if these are a guard's arguments.
fn session_of(arguments: &[u8]) -> Option<&Path> {
    let arguments = arguments.strip_suffix(b"\0")?;
    let mut words = arguments.split(|byte| *byte == 0);
    let (_program, verb, session) = (words.next()?, words.next()?, words.next()?);
    let is_guard = verb == guard::VERB.as_bytes() && words.next().is_none();
    is_guard.then(|| Path::new(OsStr::from_bytes(session)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_told_by_their_arguments() {
        let session = |arguments: &[u8]| session_of(arguments).map(Path::to_owned);
        assert_eq!(session(b"/a/b\0__guard\0/run/x\0"), Some("/run/x".into()));
        for other in [
            &b"/a\0__guard\0"[..],
            b"a\0b\0c\0",
            b"a\0__guard\0c\0d\0",
            b"",
            b"\0",
        ] {
            assert_eq!(session(other), None);
        }
    }
}
