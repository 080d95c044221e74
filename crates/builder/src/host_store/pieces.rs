//! Store paths of the host as pieces that can be put into the machine, one by one: each is a read-only
//! mount of that path and nothing else. So nothing beside them is ever seen, neither what is being
//! written nor a lock.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use machinist_sys::mounts;
use rustix::mount::{UnmountFlags, unmount};

/// Descriptors that are open at once.
const AT_ONCE: usize = 128;

/// What came of putting one path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there.
    There,
    /// Something of the machine's own is in its place.
    Taken,
    /// The machine's kernel remembers one of this name, which was taken out of it.
    Former,
    /// Nix says that it is valid, but the host does not have it.
    Lost(String),
}

/// A path of the host.
enum Piece {
    Directory(OwnedFd),
    File(OwnedFd),
    /// Nothing can be mounted on a link, so it is made again: what it says is all of it.
    Link(PathBuf),
    Lost(String),
}

impl Piece {
    fn take(path: &Path) -> io::Result<Self> {
        let found = match fs::symlink_metadata(path) {
            Err(error) => return Ok(Self::Lost(error.to_string())),
            Ok(found) => found.file_type(),
        };
        if found.is_symlink() {
            return fs::read_link(path).map(Self::Link);
        }
        let tree = mounts::read_only(path)?;
        if found.is_dir() {
            return Ok(Self::Directory(tree));
        }
        Ok(Self::File(tree))
    }

    /// `again`: what a former mount was on may be there.
    fn put(self, target: &Path, again: bool) -> io::Result<Put> {
        let made = match &self {
            Self::Lost(why) => return Ok(Put::Lost(why.clone())),
            Self::Directory(_) => fs::create_dir(target),
            Self::File(_) => File::create_new(target).map(drop),
            Self::Link(to) => symlink(to, target),
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !again || !self.was_on(target) {
                    return Ok(Put::Taken);
                }
            }
            made => made?,
        }
        match self {
            Self::Directory(tree) | Self::File(tree) => {
                mounts::attach(tree.as_fd(), target)?;
            }
            Self::Link(_) | Self::Lost(_) => {}
        }
        Ok(Put::There)
    }

    /// Whether what is at `target` is nothing but the place of this.
    fn was_on(&self, target: &Path) -> bool {
        match self {
            Self::Directory(_) => {
                fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none())
            }
            Self::File(_) => {
                fs::symlink_metadata(target).is_ok_and(|it| it.is_file() && it.len() == 0)
            }
            Self::Link(to) => fs::read_link(target).is_ok_and(|found| found == *to),
            Self::Lost(_) => false,
        }
    }
}

/// Puts the paths `names` of the directory `from` into the directory `to` of a mount namespace. Where one
/// fails, none is there afterwards. Blocks.
pub(super) fn put(
    namespace: BorrowedFd<'_>,
    from: &Path,
    to: &Path,
    names: &[String],
    again: bool,
) -> io::Result<Vec<Put>> {
    let mut all = Vec::new();
    let mut there = Vec::new();
    let failed = names.chunks(AT_ONCE).try_for_each(|names| {
        let pieces = names.iter().map(|name| Piece::take(&from.join(name)));
        let pieces = pieces.collect::<io::Result<Vec<Piece>>>()?;
        mounts::in_mounts(namespace, || {
            for (piece, name) in pieces.into_iter().zip(names) {
                let put = piece.put(&to.join(name), again)?;
                if put == Put::There {
                    there.push(name.clone());
                }
                all.push(put);
            }
            Ok(())
        })?
    });
    if let Err(error) = failed {
        // The first error is the one to tell. Former places are still needed.
        drop(take(namespace, to, &there, !again));
        return Err(error);
    }
    Ok(all)
}

/// Takes the paths `names`, which [`put`] has put there, out of the directory `to` of a mount namespace
/// again, with the places that they were on where `places` says so. Blocks.
pub(super) fn take(
    namespace: BorrowedFd<'_>,
    to: &Path,
    names: &[String],
    places: bool,
) -> io::Result<()> {
    mounts::in_mounts(namespace, || {
        for name in names {
            let target = to.join(name);
            // Nothing is mounted on a link, or on what is not there. What uses it now keeps it until it ends.
            let mounted = unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok();
            if places && (mounted || target.is_symlink()) {
                // A directory that is not empty is none of ours.
                drop(fs::remove_file(&target).or_else(|_| fs::remove_dir(&target)));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root, as mounts do.
    #[test]
    fn what_is_the_machines_own_stays_where_one_path_cannot_be_put() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        for store in [&from, &to] {
            fs::create_dir(store).unwrap();
            symlink("says", store.join("own")).unwrap();
        }
        fs::create_dir(from.join("new")).unwrap();
        symlink("says", from.join("link")).unwrap();
        let mut inside = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", "echo; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(inside.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let namespace = File::open(format!("/proc/{}/ns/mnt", inside.id())).unwrap();
        let put = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            put(namespace.as_fd(), &from, &to, &names, false)
        };
        // The last one's directory is not there.
        fs::create_dir(from.join("deep")).unwrap();
        fs::create_dir(from.join("deep/er")).unwrap();
        put(&["own", "new", "link", "deep/er"]).unwrap_err();
        let left: Vec<_> = fs::read_dir(&to).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(to.join("own").is_symlink());
        assert_eq!(
            put(&["own", "new", "link"]).unwrap(),
            [Put::Taken, Put::There, Put::There]
        );
        drop(inside.stdin.take());
        inside.wait().unwrap();
    }
}
