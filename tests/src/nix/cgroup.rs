//! A control group for each Nix: it makes one for every build, named by the build's first user id,
//! and kills whatever is in one of that name. Two that run at once are not to see each other's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where cgroups may be.
const MOUNTS: &str = "/sys/fs/cgroup";

/// One of our own, below the one that we are in. Dropping it removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Its path below the mount.
    inside: PathBuf,
}

impl Cgroup {
    /// Makes it. None where the host has no cgroup2 that we may write to.
    pub fn new(name: &str) -> Result<Option<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let inside = Path::new(own.unwrap_or_default()).join(name);
        let mounted = [PathBuf::from(MOUNTS), Path::new(MOUNTS).join("unified")];
        let top = mounted
            .into_iter()
            .find(|it| it.join("cgroup.procs").exists());
        let path = top.map(|top| top.join(&inside));
        Ok(path
            .filter(|path| fs::create_dir(path).is_ok())
            .map(|path| Self { path, inside }))
    }

    /// What a process writes 0 to, to join.
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
        // systemd-nspawn makes one of the same name in the older hierarchy, where there is one.
        remove(&Path::new(MOUNTS).join("systemd").join(&self.inside));
    }
}

/// Removes a cgroup and those below it; their files go with them.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // One that a last process is still leaving stays, empty.
    drop(fs::remove_dir(cgroup));
}
