//! Snapshots that are not made, for a while.

use std::fs;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::known::write_beside;
use super::parts::SnapshotKey;
use super::store::SnapshotStore;

/// How long what was refused is not tried again. The next boot of the host ends it, too.
const REFUSED: Duration = Duration::from_secs(3600);

/// Why a snapshot is not made.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    boot_id: String,
    /// Seconds since 1970.
    since: u64,
    reason: String,
}

impl SnapshotStore {
    /// What was just made does not restore, or could not be made in all its time: for a while that is
    /// not tried again, for this `reason`.
    pub(crate) fn refuse(&self, key: &SnapshotKey, reason: &str) {
        let refusal = Refusal {
            boot_id: self.host().boot_id.clone(),
            since: now(),
            reason: reason.to_owned(),
        };
        let place = self.shared.dir.join("refused").join(key.as_str());
        // Who cannot remember tries again.
        drop(write_beside(&place, &refusal));
    }

    /// Why this one is not made now, where that is so.
    pub(super) fn refused(&self, key: &SnapshotKey) -> Option<String> {
        let place = self.shared.dir.join("refused").join(key.as_str());
        let refusal: Refusal = serde_json::from_slice(&fs::read(&place).ok()?).ok()?;
        let age = Duration::from_secs(now().saturating_sub(refusal.since));
        if refusal.boot_id == self.host().boot_id && age < REFUSED {
            return Some(refusal.reason);
        }
        drop(fs::remove_file(&place));
        None
    }

    /// Whatever was refused may be tried again.
    pub(super) fn forget_refusals(&self) {
        let entries = fs::read_dir(self.shared.dir.join("refused"));
        for entry in entries.into_iter().flatten().flatten() {
            // One that stays ends with its time.
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
