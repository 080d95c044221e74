//! Paths in a Nix store, and where they are on the disk.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where a store is for what is in it.
pub(super) const STORE: &str = "nix/store";

/// As many links as a system follows before it takes them for a circle.
const LINKS: usize = 40;

/// A path in a Nix store whose `/` is the directory `root`: `/`, or that of `nix build --store ROOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The store's `/`.
    pub(super) root: PathBuf,
    /// The path, as those in the store call it: `/nix/store/HASH-NAME`.
    pub(super) path: PathBuf,
}

impl Place {
    /// Where `path`, which has no links any more, lies in a store; `None` where it is none of its
    /// paths.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?;
        let store = path.parent()?;
        if !store.ends_with(STORE) {
            return None;
        }
        Some(Self {
            root: store.parent()?.parent()?.to_owned(),
            path: Path::new("/").join(STORE).join(name),
        })
    }
}

/// Where `path`, as those call it whose `/` is `root`, is on the disk, with no link left in it.
///
/// # Errors
/// There is no such file.
pub(super) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(next) = left.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        let rest = parts.as_path().to_owned();
        left.push(rest);
        match part {
            Component::RootDir | Component::Prefix(_) => at = PathBuf::new(),
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                let candidate = root.join(&at).join(name);
                if fs::symlink_metadata(&candidate)?.is_symlink() {
                    links += 1;
                    if links > LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    left.push(fs::read_link(&candidate)?);
                } else {
                    at.push(name);
                }
            }
        }
    }
    Ok(root.join(at))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_of_a_store_is_known() {
        let place = Place::of(Path::new("/nix/store/aaa-nixos")).unwrap();
        assert_eq!(place.root, Path::new("/"));
        let place = Place::of(Path::new("/mnt/nix/store/aaa-nixos")).unwrap();
        assert_eq!(place.root, Path::new("/mnt"));
        assert_eq!(place.path, Path::new("/nix/store/aaa-nixos"));
        assert_eq!(Place::of(Path::new("/nix/store")), None);
        assert_eq!(Place::of(Path::new("/nix/store/aaa-nixos/kernel")), None);
        assert_eq!(Place::of(Path::new("/home/me/result")), None);
    }

    #[test]
    fn links_stay_inside() {
        let place = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(place.path()).unwrap();
        let store = root.join(STORE);
        fs::create_dir_all(store.join("k")).unwrap();
        fs::create_dir_all(store.join("s")).unwrap();
        fs::write(store.join("k/bzImage"), "").unwrap();
        symlink("/nix/store/k/bzImage", store.join("s/kernel")).unwrap();
        symlink("../k", store.join("s/dir")).unwrap();
        symlink("self", store.join("s/self")).unwrap();
        let wanted = store.join("k/bzImage");
        let of = |path: &str| resolve(&root, Path::new(path));
        assert_eq!(of("/nix/store/s/kernel").unwrap(), wanted);
        assert_eq!(of("/nix/store/s/dir/bzImage").unwrap(), wanted);
        assert_eq!(of("/../../nix/store/s/dir/./bzImage").unwrap(), wanted);
        assert!(of("/nix/store/s/missing").is_err());
        assert!(of("/nix/store/s/self").is_err());
    }
}
