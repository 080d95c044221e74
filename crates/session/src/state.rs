//! Directories that machines of start scripts keep their state in. They outlive the session, so
//! that the next can go on with them, as those of NixOS' driver do.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use machinist_sys::lock::Locked;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::path_error::{At, PathError};

/// The state directories of a session.
#[derive(Debug)]
pub(crate) struct StatePlaces {
    root: PathBuf,
    shared: PathBuf,
    /// Those that are held.
    held: Mutex<HashMap<PathBuf, Weak<StateDir>>>,
}

/// A machine's state directory, held for one session.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    /// Two sessions in one directory would spoil each other's disks. `None` where the file system
    /// has no locks.
    _lock: Option<Locked>,
}

impl StatePlaces {
    /// Those under `root`, which is there, and `shared`, which is made where it is not.
    pub(crate) fn open(root: &Path, shared: &Path) -> Result<Self, PathError> {
        let places = Self {
            root: root.to_owned(),
            shared: shared.to_owned(),
            held: Mutex::default(),
        };
        make(shared)?;
        Ok(places)
    }

    /// The directory that all machines see.
    pub(crate) fn shared(&self) -> &Path {
        &self.shared
    }

    /// A machine's directory, made where it is missing. Without `keep` nothing of before is in it.
    pub(crate) fn of(&self, machine: &str, keep: bool) -> Result<Arc<StateDir>, PathError> {
        let path = self.root.join(format!("vm-state-{machine}"));
        make(&path)?;
        let state = self.hold(&path)?;
        if !keep {
            empty(&path)?;
        }
        Ok(state)
    }

    /// A directory that is there, with what is in it. Machines of this session may share it: a
    /// system is installed by one machine, and booted by another.
    pub(crate) fn hold(&self, path: &Path) -> Result<Arc<StateDir>, PathError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = held.get(path).and_then(Weak::upgrade) {
            return Ok(state);
        }
        let state = Arc::new(StateDir::hold(path)?);
        held.insert(path.to_owned(), Arc::downgrade(&state));
        Ok(state)
    }
}

impl StateDir {
    fn hold(path: &Path) -> Result<Self, PathError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        let lock = match Locked::try_exclusive(directory.into()) {
            Ok(None) => {
                return Err(io::Error::other("another session uses it"))
                    .at("use the state directory", path);
            }
            Ok(lock) => lock,
            // A directory for us alone: as good as locked.
            Err(_) => None,
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

/// Makes a directory. One that is there is ours, and no link to somewhere else.
fn make(path: &Path) -> Result<(), PathError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).at("look at", path)?;
            if found.is_dir() {
                return Ok(());
            }
            Err(io::Error::from(Errno::NOTDIR)).at("use the directory", path)
        }
        made => made.at("make the directory", path),
    }
}

/// Removes what is in a directory. Links in it are removed, and not followed.
fn empty(path: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(path).at("list", path)? {
        let entry = entry.at("list", path)?.path();
        remove(&entry).at("remove", &entry)?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        // NixOS makes /var/empty immutable.
        machinist_machine::leftovers::remove_tree(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::IFlags;

    use super::*;

    fn places(directory: &Path) -> StatePlaces {
        StatePlaces::open(directory, &directory.join("shared-xchg")).unwrap()
    }

    #[test]
    fn a_state_is_emptied_or_kept_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        let state = places.of("web", false).unwrap();
        assert_eq!(state.path, directory.path().join("vm-state-web"));
        fs::create_dir_all(state.path.join("a/b")).unwrap();
        symlink(&outside, state.path.join("link")).unwrap();
        symlink(&outside, state.path.join("a/link")).unwrap();
        drop(state);
        let state = places.of("web", true).unwrap();
        assert!(state.path.join("a/b").exists());
        drop(state);
        let state = places.of("web", false).unwrap();
        assert_eq!(fs::read_dir(&state.path).unwrap().count(), 0);
        assert!(outside.join("precious").exists());
    }

    #[test]
    fn a_state_directory_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        symlink("/", directory.path().join("vm-state-web")).unwrap();
        assert!(places.of("web", false).is_err());
    }

    #[test]
    fn a_state_directory_has_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let others = self::places(directory.path());
        let first = places.of("web", false).unwrap();
        assert_eq!(places.hold(&first.path).unwrap().path, first.path);
        let error = others.of("web", true).unwrap_err();
        assert!(error.io().to_string().contains("another"), "{error}");
        drop(first);
        drop(others.of("web", true).unwrap());
    }

    #[test]
    fn an_immutable_directory_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let state = places.of("web", false).unwrap();
        let stuck = state.path.join("var/empty");
        fs::create_dir_all(&stuck).unwrap();
        let file = fs::File::open(&stuck).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file);
        let set =
            flags.and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE));
        if let Err(error) = set {
            eprintln!("not tried: no immutable directories here ({error})");
            return;
        }
        assert!(fs::remove_dir_all(state.path.join("var")).is_err());
        empty(&state.path).unwrap();
        assert!(!state.path.join("var").exists());
    }
}
