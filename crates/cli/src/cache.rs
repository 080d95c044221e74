//! The cache: whose it is, and each user's part of one that several share.
//!
//! Machines boot what is in it, so nobody else may be able to put something there. A directory that
//! is for all, as `/tmp` is, has a part for each user.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use machinist_sys::id_map::{self, IdRange};
use machinist_sys::owner::{self, NotOurs, is_for_all, not_ours};
use rustix::fs::Access;
use rustix::process::geteuid;
use thiserror::Error;

use crate::error::CliError;

/// What helps in any case.
const OTHER_PLACE: &str = "set MACHINIST_CACHE to a directory of your own";

/// What helps users who want one place.
const FOR_ALL: &str = "or to one for all users, which root makes: install -d -m 1777 DIRECTORY";

/// Why the cache cannot be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Others may put something into it.
    #[error("the cache cannot be used: {0}")]
    NotOurs(NotOurs),
    /// Whose directory is for all could exchange what is in it.
    #[error(
        "the cache cannot be used: {} is for all users, and belongs to {}, who could exchange what is in it",
        path.display(), owner::name(*user)
    )]
    Landlord {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        user: u32,
    },
    /// There is no place for it.
    #[error("there is no place for the cache: HOME is not set")]
    Nowhere,
    /// It is not there and cannot be made, or cannot be looked at.
    #[error("the cache cannot be used: {}: {source}", path.display())]
    Path {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CacheError {
    /// What the user can do about it, each as one line.
    pub fn hints(&self) -> Vec<String> {
        let other = OTHER_PLACE.to_owned();
        match self {
            Self::NotOurs(why @ NotOurs::Open { .. }) => vec![why.hint(), other],
            Self::NotOurs(NotOurs::Another { path, owner: 0, .. }) => {
                let path = path.display();
                let mistake = format!("or, if `sudo` has left it there: sudo rm -r {path}");
                vec![other, mistake, FOR_ALL.to_owned()]
            }
            Self::NotOurs(NotOurs::Another { .. }) => vec![other, FOR_ALL.to_owned()],
            Self::Landlord { path, .. } => {
                vec![format!("sudo chown root {}", path.display()), other]
            }
            Self::Path { .. } | Self::Nowhere => vec![other],
        }
    }
}

impl From<CacheError> for CliError {
    fn from(error: CacheError) -> Self {
        let hints = error.hints();
        hints.into_iter().fold(Self::host(error), Self::hint)
    }
}

/// Where nothing is, and nobody can make something.
const NOWHERE: &str = "/proc/no-cache";

/// The cache's place. Nothing is checked before [`Cache::look`], nor made before [`Cache::check`].
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    /// The directory for all users that it is in.
    shared: Option<PathBuf>,
}

impl Cache {
    /// The cache at `place`, or this user's part of it, where it is for all.
    pub fn at(place: PathBuf, user: u32) -> Self {
        if is_for_all(&place) {
            Self {
                dir: place.join(format!("user-{user}")),
                shared: Some(place),
            }
        } else {
            Self {
                dir: place,
                shared: None,
            }
        }
    }

    /// None, which harms nobody but who needs it.
    pub fn nowhere() -> Self {
        Self {
            dir: NOWHERE.into(),
            shared: None,
        }
    }

    /// Where it is, or will be.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is there. Nobody else may write to it; where it is not there, we could make it.
    /// Nothing is written for that.
    pub fn look(&self) -> Result<bool, CacheError> {
        if self.dir == Path::new(NOWHERE) {
            return Err(CacheError::Nowhere);
        }
        if let Some(shared) = &self.shared {
            let owner = fs::metadata(shared).map_err(|it| at(shared, it))?.uid();
            if !may_let(owner) {
                let path = shared.clone();
                return Err(CacheError::Landlord { path, user: owner });
            }
        }
        match not_ours(&self.dir) {
            Ok(Some(why)) => Err(CacheError::NotOurs(why)),
            Ok(None) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = self.dir.ancestors().skip(1).find(|it| it.exists());
                let above = above.unwrap_or(Path::new("/"));
                let may = Access::WRITE_OK | Access::EXEC_OK;
                let could = rustix::fs::access(above, may);
                could.map_err(|it| at(above, it.into()))?;
                Ok(false)
            }
            Err(error) => Err(at(&self.dir, error)),
        }
    }

    /// Makes it where it is not there, and sees to it that nobody else may write to it.
    pub fn check(&self) -> Result<(), CacheError> {
        self.look()?;
        let mut builder = DirBuilder::new();
        // Others need to know nothing of what is in a part of our own.
        builder.mode(if self.shared.is_some() { 0o700 } else { 0o755 });
        let made = builder.recursive(self.shared.is_none()).create(&self.dir);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at(&self.dir, error));
            }
            _ => {}
        }
        match not_ours(&self.dir).map_err(|it| at(&self.dir, it))? {
            Some(why) => Err(CacheError::NotOurs(why)),
            None => Ok(()),
        }
    }
}

fn at(path: &Path, source: io::Error) -> CacheError {
    CacheError::Path {
        path: path.to_owned(),
        source,
    }
}

/// Whether a directory for all may belong to this user: to root, or to us. In a user namespace, where
/// root is nobody, this has been asked outside.
fn may_let(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw() || in_namespace()
}

/// Whether this is a user namespace with some ids only.
fn in_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = IdRange {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    };
    !id_map::ranges(&map).any(|it| it == whole)
}

/// Whether somebody else, who is not root, owns a directory that this one is or would be in.
pub fn is_below_anothers(place: &Path) -> bool {
    let mut above = place.ancestors().filter_map(|it| it.metadata().ok());
    above.any(|it| !may_let(it.uid()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn why(cache: &Cache) -> String {
        cache.check().unwrap_err().to_string()
    }

    #[test]
    fn a_directory_for_all_has_a_part_for_each() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cache");
        // Made with all above it.
        let own = Cache::at(path.join("own"), 7);
        assert!(!own.look().unwrap() && !path.exists());
        own.check().unwrap();
        assert!(own.look().unwrap());
        assert!(matches!(Cache::nowhere().look(), Err(CacheError::Nowhere)));
        assert_eq!(own.dir(), path.join("own"));
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        let cache = Cache::at(path.clone(), 7);
        assert_eq!(cache.dir(), path.join("user-7"));
        cache.check().unwrap();
        cache.check().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(cache.dir()), 0o700);
        // Not for all, but open to them.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let open = Cache::at(path.clone(), 7);
        assert!(why(&open).contains("(mode 777)"), "{}", why(&open));
        let hints = open.check().unwrap_err().hints();
        assert!(hints[0].ends_with(&format!("chmod go-w {}", path.display())));
    }

    #[test]
    fn what_others_own_is_not_used() {
        if !geteuid().is_root() {
            eprintln!("skipped: this needs root, to give a directory away");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path();
        fs::set_permissions(path, Permissions::from_mode(0o1777)).unwrap();
        let cache = Cache::at(path.to_owned(), 7);
        // Somebody was there first.
        fs::create_dir(cache.dir()).unwrap();
        chown(cache.dir(), Some(1), None).unwrap();
        let [named, owner] = [cache.dir().display().to_string(), owner::name(1)];
        let text = format!("{named} belongs to {owner}, and this runs as root");
        assert!(why(&cache).ends_with(&text), "{}", why(&cache));
        fs::remove_dir(cache.dir()).unwrap();
        // Who lets the directory to all could move our part of it away.
        chown(path, Some(1), None).unwrap();
        assert!(why(&cache).contains(&format!("belongs to {owner}, who could")));
        assert!(!cache.dir().exists());
    }
}
