//! What is in the store, and throwing it away.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use machinist_image::Prune;

use super::error::SnapshotError;
use super::lock::DirectoryLock;
use super::parts::SnapshotKey;
use super::saved::{Manifest, Saved};
use super::store::SnapshotStore;
use crate::path_error::PathContext;

/// A snapshot in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its key.
    pub key: SnapshotKey,
    /// Its directory.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// When it was last used.
    pub last_used: SystemTime,
    /// Whether a machine uses it now.
    pub in_use: bool,
}

/// What was thrown away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// What is gone, or would be.
    pub removed: Vec<SnapshotInfo>,
    /// What would have gone, but is in use.
    pub in_use: Vec<SnapshotInfo>,
    /// Bytes that are free again, or would be.
    pub bytes: u64,
}

impl SnapshotStore {
    /// Every snapshot in the store, the last used first. What cannot be read is left out.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let dir = &self.shared.dir;
        let mut found = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries.path(dir)?,
        };
        for entry in entries {
            let entry = entry.path(dir)?;
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| name.parse().ok());
            if let Some(key) = key {
                found.extend(info(key, entry.path()));
            }
        }
        found.sort_by(|a, b| (b.last_used, &b.key).cmp(&(a.last_used, &a.key)));
        Ok(found)
    }

    /// Throws away what `prune` says, but never what is in use.
    ///
    /// # Errors
    /// The store cannot be read or changed. What was thrown away until then is gone.
    pub fn prune(&self, prune: &Prune) -> Result<Freed, SnapshotError> {
        let mut freed = Freed::default();
        if prune.all && !prune.dry_run {
            self.forget_refusals();
        }
        for info in select(self.list()?, prune, SystemTime::now()) {
            let gone = !info.in_use && (prune.dry_run || self.remove(&info)?);
            if gone {
                freed.bytes += info.manifest.usage;
                freed.removed.push(info);
            } else {
                freed.in_use.push(info);
            }
        }
        Ok(freed)
    }

    /// Removes a snapshot, unless it is in use: then false.
    fn remove(&self, info: &SnapshotInfo) -> Result<bool, SnapshotError> {
        let Some(_lock) = DirectoryLock::exclusive(&info.path)? else {
            return Ok(false);
        };
        self.take_away(&info.path).path(&info.path)?;
        Ok(true)
    }

    /// Throws away what was used longest ago, until the rest keeps to the store's limit.
    pub(super) fn keep_to_limit(&self) {
        let prune = Prune {
            to_size: Some(self.shared.limit),
            ..Prune::default()
        };
        match self.prune(&prune) {
            Ok(freed) if !freed.removed.is_empty() => {
                tracing::info!(
                    count = freed.removed.len(),
                    bytes = freed.bytes,
                    "removed the snapshots that were used longest ago"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the snapshots cannot be kept to their limit"),
        }
    }
}

/// None where it has vanished meanwhile, or cannot be read.
fn info(key: SnapshotKey, path: PathBuf) -> Option<SnapshotInfo> {
    let manifest = Saved::open(&path).ok()?.manifest().clone();
    let last_used = fs::metadata(&path)
        .and_then(|found| found.modified())
        .ok()?;
    let in_use = matches!(DirectoryLock::exclusive(&path), Ok(None));
    Some(SnapshotInfo {
        key,
        path,
        manifest,
        last_used,
        in_use,
    })
}

/// What goes, given everything, the last used first.
fn select(list: Vec<SnapshotInfo>, prune: &Prune, now: SystemTime) -> Vec<SnapshotInfo> {
    let mut total: u64 = list.iter().map(|info| info.manifest.usage).sum();
    let mut selected = Vec::new();
    for info in list.into_iter().rev() {
        // A clock that was set back makes nothing old.
        let age = now.duration_since(info.last_used).unwrap_or(Duration::ZERO);
        let old = prune.unused_for.is_some_and(|limit| age >= limit);
        let too_much = prune.to_size.is_some_and(|limit| total > limit);
        if prune.all || old || too_much {
            // What is in use stays, and so counts on.
            if !info.in_use {
                total -= info.manifest.usage;
            }
            selected.push(info);
        }
    }
    selected
}
