//! The snapshots of VMs, opened when a VM first wants one.

use std::sync::{Arc, OnceLock};

use machinist_machine::{SnapshotError, SnapshotStore};

use crate::engine::Snapshots;

/// The store of snapshots, opened when it is first needed.
#[derive(Debug, Clone)]
pub(crate) struct LazySnapshots(Arc<(Snapshots, OnceLock<SnapshotStore>)>);

impl LazySnapshots {
    pub(crate) fn new(settings: Snapshots) -> Self {
        Self(Arc::new((settings, OnceLock::new())))
    }

    /// The store. May block.
    pub(crate) fn get(&self) -> Result<SnapshotStore, SnapshotError> {
        let (settings, cell) = &*self.0;
        if let Some(store) = cell.get() {
            return Ok(store.clone());
        }
        let mut store = SnapshotStore::open(&settings.directory, settings.limit)?;
        for source in &settings.sources {
            store = store.with_source(source);
        }
        Ok(cell.get_or_init(|| store).clone())
    }
}
