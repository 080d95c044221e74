//! What this host, or this sandbox, lets us do. Everything is found by doing it.
//!
//! For whoever decides between a container and a VM before anything boots.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub use crate::ground::{GroundError, Lack, Lacks, Need};

/// Whether containers can run here, by a helper process that is `exe`: a program whose `main` calls
/// [`crate::helper::dispatch`]. It makes the namespaces, the mounts, a cgroup and a first process as
/// a container needs them, and leaves nothing. Blocks for some milliseconds.
///
/// # Errors
/// All that is lacking ([`GroundError::Lacks`]); or the helper could not be run.
pub fn containers(exe: &Path) -> Result<(), GroundError> {
    crate::ground::probe(exe)
}

/// Why programs in a container cannot get another user's rights by their setuid bit, as `su` and
/// `sudo` of ordinary users do. Commands that root runs are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum NoSetuid {
    /// A process that was started with this flag, and all that come from it, get no new rights.
    #[error("this process may gain no privileges (no_new_privs), nor may what it starts")]
    NoNewPrivileges,
    /// The bit itself is refused, as Nix's sandbox does.
    #[error("a file cannot be made setuid")]
    Refused(#[source] io::Error),
}

/// Whether setuid programs work in containers that are run from here. `dir` is a directory on a file
/// system that containers' roots are on; a file is made and removed there.
///
/// # Errors
/// They do not, and this is why.
pub fn setuid(dir: &Path) -> Result<(), NoSetuid> {
    // Told by the kernel itself, and final: there is nothing to try.
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return Err(NoSetuid::NoNewPrivileges);
    }
    let file = dir.join(format!(".machinist-setuid-{}", std::process::id()));
    let tried = fs::write(&file, "")
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)));
    drop(fs::remove_file(&file));
    tried.map_err(NoSetuid::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setuid_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let found = setuid(dir.path());
        let told = rustix::thread::no_new_privs().unwrap();
        assert_eq!(matches!(found, Err(NoSetuid::NoNewPrivileges)), told);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        if !told {
            assert!(matches!(
                setuid(Path::new("/no/such/directory")),
                Err(NoSetuid::Refused(_))
            ));
        }
    }
}
