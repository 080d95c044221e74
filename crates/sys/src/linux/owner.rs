//! Whose a directory is. What machines boot must not be another user's to change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};
use thiserror::Error;

/// Who may write to a directory, beside its owner.
const OTHERS: u32 = 0o002;
const GROUP: u32 = 0o020;
/// What is in it can be renamed and removed by its owner alone.
const STICKY: u32 = 0o1000;

/// Why others could change what is in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotOurs {
    /// It is another user's.
    #[error("{} belongs to {}, and this runs as {}", path.display(), name(*owner), name(*caller))]
    Another {
        /// The directory.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// The user who asks.
        caller: u32,
    },
    /// Others may write to it.
    #[error("{} can be written to by others (mode {mode:o})", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl NotOurs {
    /// What helps, as a sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Another { .. } => "each user needs one of their own".to_owned(),
            Self::Open { path, .. } => {
                format!("if nobody else has: chmod go-w {}", path.display())
            }
        }
    }
}

/// Why others could change what is in the directory, if they could. Those who have our own group
/// are not others, since that is each user's own on most systems.
///
/// # Errors
/// There is no such directory, or it cannot be looked at.
pub fn not_ours(path: &Path) -> io::Result<Option<NotOurs>> {
    let found = fs::metadata(path)?;
    let (caller, mode) = (geteuid().as_raw(), found.mode() & 0o7777);
    let groups = mode & GROUP != 0 && found.gid() != getegid().as_raw();
    let path = path.to_owned();
    Ok(if found.uid() != caller {
        let owner = found.uid();
        Some(NotOurs::Another {
            path,
            owner,
            caller,
        })
    } else if mode & OTHERS != 0 || groups {
        Some(NotOurs::Open { path, mode })
    } else {
        None
    })
}

/// Whether several users may make files and directories there, each of which is its maker's alone:
/// what `/tmp` is.
#[must_use]
pub fn is_for_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let mode = found.mode();
        found.is_dir() && mode & STICKY != 0 && mode & (GROUP | OTHERS) != 0
    })
}

/// What a user is called here.
#[must_use]
pub fn name(user: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("user {user}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_directory_is_ours_where_nobody_else_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let with_mode = |mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            (not_ours(path).unwrap(), is_for_all(path))
        };
        assert_eq!(with_mode(0o700), (None, false));
        assert_eq!(with_mode(0o755), (None, false));
        // Our own group's.
        assert_eq!(with_mode(0o775), (None, false));
        for mode in [0o777, 0o1777] {
            let (why, for_all) = with_mode(mode);
            let path = path.to_owned();
            assert_eq!(why, Some(NotOurs::Open { path, mode }));
            assert_eq!(for_all, mode == 0o1777);
        }
        if geteuid().is_root() {
            chown(path, None, Some(12)).unwrap();
            assert!(matches!(with_mode(0o775).0, Some(NotOurs::Open { .. })));
            assert_eq!(with_mode(0o755).0, None);
            chown(path, Some(1), None).unwrap();
            let why = with_mode(0o700).0.unwrap().to_string();
            let end = format!(" belongs to {}, and this runs as {}", name(1), name(0));
            assert!(why.ends_with(&end), "{why}");
        }
    }

    #[test]
    fn who_is_not_known_has_a_number() {
        assert_eq!(name(0), "root");
        assert_eq!(name(4_000_000_001), "user 4000000001");
    }
}
