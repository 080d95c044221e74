//! The checkpoints of a session: the whole lab at one moment, to go back to.
//!
//! All machines of a checkpoint stand still at one moment, and with them the network: a frame is in
//! one machine or on its way, never in both and never in neither. What can be made before that
//! moment is made before, so that it is short.

mod back;
mod clones;
mod spares;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use machinist_machine::checkpoint::Checkpoint;
use machinist_network::InFlight;

use crate::hub::Hub;
use crate::protocol::{CheckpointStatus, Fault};

/// The checkpoints of a session, by their names.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Where their files are.
    directory: PathBuf,
    taken: Mutex<BTreeMap<String, Arc<Taken>>>,
    /// Held while one is taken or gone back to.
    busy: tokio::sync::Mutex<()>,
    made: AtomicU64,
    /// The machines of which was told that not all of them is in checkpoints.
    told: Mutex<BTreeSet<String>>,
}

/// The lab at one moment.
#[derive(Debug)]
struct Taken {
    created: SystemTime,
    /// Its files; gone when this is.
    directory: PathBuf,
    /// Machines that had not been made have nothing.
    machines: BTreeMap<String, Option<Checkpoint>>,
    network: Wire,
    /// How long the machines stood still.
    still: Duration,
    /// How often the lab went back to it.
    returns: AtomicU64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // What cannot be removed now goes with the session. Machines that run on it keep what they
        // have mapped.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// A session's network at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    /// By the numbers of the VLANs.
    pub(crate) frames: BTreeMap<u32, Vec<InFlight>>,
    /// Cables that are pulled: machine and VLAN.
    pub(crate) pulled: Vec<(String, u32)>,
}

impl Checkpoints {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            taken: Mutex::default(),
            busy: tokio::sync::Mutex::default(),
            made: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<CheckpointStatus> {
        let taken = self.taken();
        let mut all: Vec<_> = taken.iter().collect();
        all.sort_by_key(|(_, taken)| taken.created);
        let status = |(name, taken): (&String, &Arc<Taken>)| status(name, taken);
        all.into_iter().map(status).collect()
    }

    /// Forgets one, and removes its files.
    pub(crate) async fn drop_one(&self, hub: &Hub, name: &str) -> Result<(), Fault> {
        let gone = self.taken().remove(name);
        let gone = gone.ok_or_else(|| self.unknown(name))?;
        gone.forget(hub).await;
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Arc<Taken>, Fault> {
        let found = self.taken().get(name).cloned();
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Fault {
        let taken = self.taken();
        let known: Vec<&str> = taken.keys().map(String::as_str).collect();
        Fault::usage(match known.as_slice() {
            [] => format!("there is no checkpoint {name:?}: none has been taken"),
            known => format!(
                "there is no checkpoint {name:?}; there are: {}",
                known.join(", ")
            ),
        })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Taken>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn status(name: &str, taken: &Taken) -> CheckpointStatus {
    let since = taken.created.duration_since(SystemTime::UNIX_EPOCH);
    CheckpointStatus {
        name: name.to_owned(),
        created: since.map_or(0.0, |since| since.as_secs_f64()),
        still: taken.still.as_secs_f64(),
        machines: taken.machines.keys().cloned().collect(),
    }
}
