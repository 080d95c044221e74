//! Finding snapshots, and keeping only what is of use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::{fs, io};

use machinist_sys::owner::not_ours;
use twox_hash::xxhash3_64;

use super::error::SnapshotError;
use super::host::Host;
use super::known::Known;
use super::layout::{remove, usable};
use super::lock::DirectoryLock;
use super::parts::SnapshotKey;
use super::saved::Saved;

/// Keeps snapshots. Clones are the same store.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    pub(super) shared: Arc<Shared>,
    /// Directories with snapshots that others made, which are only read.
    pub(super) sources: Vec<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// Bytes that snapshots may take.
    pub(super) limit: u64,
    /// Why nothing can be kept, where that is so.
    pub(super) read_only: Option<String>,
    /// Whether others may write there, so that nothing in it is restored.
    foreign: bool,
    known: Known,
    host: OnceLock<Host>,
    agent: OnceLock<String>,
    /// Who makes a snapshot in this process, by key: others wait for that without looking again and
    /// again.
    pub(super) makers: Mutex<HashMap<SnapshotKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl SnapshotStore {
    /// Opens the store in the directory `dir`, which is made if it is not there. `limit` is how many
    /// bytes snapshots may take. What dead makers left is removed. A store that cannot be written
    /// is used as it is; one that others may write to, not at all.
    ///
    /// # Errors
    /// It was written by another version of machinist, or cannot be read.
    pub fn open(dir: &Path, limit: u64) -> Result<Self, SnapshotError> {
        let foreign = not_ours(dir).ok().flatten();
        let read_only = match &foreign {
            Some(why) => Some(why.to_string()),
            None => usable(dir)?,
        };
        // One absolute path: it goes into command lines.
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let known = read_only.is_none().then(|| dir.join("known"));
        let store = Self {
            shared: Arc::new(Shared {
                known: Known::in_directory(known),
                dir,
                limit,
                read_only,
                foreign: foreign.is_some(),
                host: OnceLock::new(),
                agent: OnceLock::new(),
                makers: Mutex::default(),
            }),
            sources: Vec::new(),
        };
        if store.shared.read_only.is_none() {
            store.sweep();
        }
        Ok(store)
    }

    /// The same store, which also finds the snapshots in `dir`: a directory as a store has them, or
    /// one snapshot. Nothing in it is changed.
    #[must_use]
    pub fn with_source(mut self, dir: &Path) -> Self {
        self.sources.push(dir.to_owned());
        self
    }

    pub(crate) fn known(&self) -> &Known {
        &self.shared.known
    }

    /// What the agent is that machines bring along.
    pub(crate) fn agent(&self) -> String {
        let hash = || {
            format!(
                "{:016x}",
                xxhash3_64::Hasher::oneshot(machinist_guest::AGENT)
            )
        };
        self.shared.agent.get_or_init(hash).clone()
    }

    /// This host. The first who asks may wait some milliseconds.
    pub(crate) fn host(&self) -> &Host {
        let shared = &self.shared;
        let dir = shared.read_only.is_none().then_some(shared.dir.as_path());
        shared.host.get_or_init(|| Host::look(dir))
    }

    /// The snapshot, if it is there. Blocks.
    pub(crate) fn find(&self, key: &SnapshotKey) -> Option<Saved> {
        let own = (!self.shared.foreign).then(|| self.shared.dir.join(key.as_str()));
        let theirs = self.sources.iter().flat_map(|source| {
            let inside = source.join(key.as_str());
            [inside, source.clone()]
        });
        own.into_iter()
            .chain(theirs)
            .find_map(|dir| match take(&dir) {
                Ok(Some(saved)) if saved.manifest().parts.key() == *key => Some(saved),
                _ => None,
            })
    }

    /// Throws a snapshot of this store away. One of another directory stays.
    pub(crate) fn discard(&self, saved: Saved) {
        let dir = saved.dir().to_owned();
        let ours = dir.parent() == Some(&self.shared.dir);
        // Another may have thrown it away before us, and made it anew.
        if !ours || !saved.is_still_there() || self.shared.read_only.is_some() {
            return;
        }
        // Others may be using it; nothing of theirs breaks: they have its files open, or are about
        // to find it as useless as we did.
        if let Err(error) = self.take_away(&dir) {
            tracing::warn!(path = %dir.display(), %error, "a useless snapshot stays");
        }
    }

    /// Whether a snapshot is whole, as far as that has to be looked at again. Blocks.
    pub(crate) fn verify(&self, saved: &Saved) -> Result<(), SnapshotError> {
        if saved.dir().parent() == Some(&self.shared.dir) && self.shared.read_only.is_none() {
            return saved.verify(&self.host().boot_id);
        }
        // Nothing can be noted there, so it is noted here.
        saved.verify_by(&self.shared.known)
    }

    /// Bytes that are free where the snapshots are.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.shared.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Moves a snapshot out of sight, and removes it.
    pub(super) fn take_away(&self, dir: &Path) -> io::Result<()> {
        let tmp = self.shared.dir.join("tmp");
        let away = tempfile::Builder::new().prefix("gone-").tempdir_in(tmp)?;
        // Whoever is to sweep it meanwhile does what we are about to do.
        fs::rename(dir, away.path().join("snapshot"))?;
        away.close()
    }

    /// Removes what dead makers left. What cannot be removed takes up room and does no other harm.
    fn sweep(&self) {
        let tmp = self.shared.dir.join("tmp");
        let Ok(entries) = fs::read_dir(&tmp) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if let Ok(Some(_lock)) = DirectoryLock::exclusive(&path) {
                tracing::info!(path = %path.display(), "removing what a dead maker left");
                drop(remove(&path));
            }
        }
    }
}

/// The snapshot in `dir`, held.
fn take(dir: &Path) -> Result<Option<Saved>, SnapshotError> {
    let Some(lock) = DirectoryLock::shared(dir)? else {
        return Ok(None);
    };
    let saved = Saved::open(dir)?;
    // In a store that cannot be written nothing is removed for its age either.
    drop(lock.touch());
    Ok(Some(saved.holding(lock)))
}
