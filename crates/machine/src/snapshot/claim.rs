//! The right to make a snapshot: one makes it, and all others wait for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::error::SnapshotError;
use super::layout::{private_directory, remove};
use super::lock::DirectoryLock;
use super::parts::SnapshotKey;
use super::saved::{Draft, Saved};
use super::store::SnapshotStore;
use crate::path_error::PathContext;

/// How often to look whether another process has made what we wait for. The lock of a file has no
/// event that could be awaited, and a boot takes seconds.
const LOOK: Duration = Duration::from_millis(50);

/// What becomes of the wish for a snapshot.
pub(crate) enum Claim {
    /// It is there.
    There(Saved),
    /// It is ours to make.
    Ours(Making),
    /// It is not there, and cannot be made here: why.
    Unable(String),
}

impl SnapshotStore {
    /// The snapshot, or the right to make it. Waits while somebody else makes it.
    pub(crate) async fn claim(&self, key: &SnapshotKey) -> Result<Claim, SnapshotError> {
        let mutex = self.maker(key);
        let turn = mutex.lock_owned().await;
        loop {
            let (this, wanted) = (self.clone(), key.clone());
            let tried = tokio::task::spawn_blocking(move || this.try_claim(&wanted)).await;
            match tried.map_err(io::Error::from).path(&self.shared.dir)?? {
                Some(Claim::Ours(mut making)) => {
                    making.turn = Some(turn);
                    return Ok(Claim::Ours(making));
                }
                Some(claim) => return Ok(claim),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn maker(&self, key: &SnapshotKey) -> Arc<tokio::sync::Mutex<()>> {
        let makers = self.shared.makers.lock();
        let mut makers = makers.unwrap_or_else(PoisonError::into_inner);
        makers.retain(|_, maker| maker.strong_count() > 0);
        let known = makers.get(key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let maker = Arc::default();
            makers.insert(key.clone(), Arc::downgrade(&maker));
            maker
        })
    }

    /// None while somebody else makes it.
    pub(super) fn try_claim(&self, key: &SnapshotKey) -> Result<Option<Claim>, SnapshotError> {
        if let Some(saved) = self.find(key) {
            return Ok(Some(Claim::There(saved)));
        }
        let shared = &self.shared;
        if let Some(reason) = &shared.read_only {
            return Ok(Some(Claim::Unable(reason.clone())));
        }
        if let Some(reason) = self.refused(key) {
            return Ok(Some(Claim::Unable(reason)));
        }
        let dir = shared.dir.join("tmp").join(key.as_str());
        private_directory(&dir)?;
        let Some(lock) = DirectoryLock::exclusive(&dir)? else {
            return Ok(None);
        };
        // Another may have made it between our look and our lock.
        if let Some(saved) = self.find(key) {
            drop(fs::remove_dir(&dir));
            return Ok(Some(Claim::There(saved)));
        }
        // What is in it, a maker left who was killed.
        for entry in fs::read_dir(&dir).path(&dir)? {
            let path = entry.path(&dir)?.path();
            remove(&path).path(&path)?;
        }
        Ok(Some(Claim::Ours(Making {
            store: self.clone(),
            key: key.clone(),
            dir,
            lock: Some(lock),
            turn: None,
        })))
    }
}

/// A snapshot that is being made. Dropped before [`Making::commit`], it leaves nothing.
pub(crate) struct Making {
    store: SnapshotStore,
    key: SnapshotKey,
    dir: PathBuf,
    lock: Option<DirectoryLock>,
    /// Others of this process wait for this.
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Making {
    /// Where its files go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it will be in.
    pub(crate) fn store(&self) -> &SnapshotStore {
        &self.store
    }

    /// Puts it into the store. Blocks.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub(crate) fn commit(mut self, draft: Draft) -> Result<Saved, SnapshotError> {
        let saved = Saved::seal(&self.dir, draft, &self.store.host().boot_id)?;
        let target = self.store.shared.dir.join(self.key.as_str());
        if target.exists() {
            // What is there could not be read.
            self.store.take_away(&target).path(&target)?;
        }
        fs::rename(&self.dir, &target).path(&target)?;
        let Some(lock) = self.lock.take() else {
            return Ok(saved.moved(target));
        };
        lock.share().path(&target)?;
        let saved = saved.moved(target).holding(lock);
        self.store.keep_to_limit();
        Ok(saved)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.lock.is_some() && remove(&self.dir).is_err() {
            // The next sweep takes it.
            tracing::warn!(path = %self.dir.display(), "half a snapshot stays");
        }
    }
}
