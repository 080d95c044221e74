//! What a service that was killed has left: a machine that dies, and a guard that clears it away.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use machinist_sys::lock::Locked;

/// How often a session that nobody holds is swept before it is given up.
const TRIES: usize = 5;

/// Waits until the session at `session`, below `runtime`, is gone.
pub(super) fn wait(runtime: &Path, session: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        let lock = session.join("lock");
        match OpenOptions::new().write(true).open(&lock) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            // Its guard holds it while it works.
            Ok(file) => drop(Locked::exclusive(file)?),
        }
        // The guard may not have begun yet: then this does its work.
        drop(machinist_session::sweep(runtime));
    }
    if session.exists() {
        return Err(io::Error::other(format!(
            "{} cannot be cleared away",
            session.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_gone() {
        let place = tempfile::tempdir().unwrap();
        wait(place.path(), &place.path().join("abcdefgh")).unwrap();
    }

    #[test]
    fn a_dead_session_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let session = place.path().join("abcdefgh");
        std::fs::create_dir_all(session.join("machines/linux")).unwrap();
        std::fs::write(session.join("lock"), "").unwrap();
        wait(place.path(), &session).unwrap();
        assert!(!session.exists());
    }
}
