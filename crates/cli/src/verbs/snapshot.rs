//! `machinist snapshot`

mod list;
mod make;
mod prune;

use clap::Subcommand;
use machinist_machine::{SnapshotError, SnapshotInfo, SnapshotStore};
use serde::Serialize;

use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::{human, table};

/// Look after the snapshots that VMs are restored from
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    List(list::List),
    Make(make::Make),
    Prune(prune::Prune),
}

impl Snapshot {
    /// Does it.
    pub fn run(self, environment: &Environment) -> Outcome {
        match self {
            Self::List(verb) => verb.run(environment),
            Self::Make(verb) => verb.run(environment),
            Self::Prune(verb) => verb.run(environment),
        }
    }
}

/// The snapshots; none, where nothing has been saved yet: who only looks makes nothing.
fn store(environment: &Environment) -> Result<Option<SnapshotStore>, CliError> {
    let snapshots = &environment.starts.snapshots;
    if !environment.cache.look()? || !snapshots.directory.is_dir() {
        return Ok(None);
    }
    SnapshotStore::open(&snapshots.directory, snapshots.limit)
        .map(Some)
        .map_err(failed)
}

fn failed(error: SnapshotError) -> CliError {
    CliError::machinery(error)
}

/// A snapshot as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    machine: String,
    image: String,
    /// Such as `system`.
    ready: String,
    /// Bytes on disk.
    allocated: u64,
    /// Bytes with all holes.
    apparent: u64,
    /// Seconds since 1970.
    created: u64,
    /// Seconds since 1970.
    last_used: u64,
    in_use: bool,
}

impl Shown {
    fn of(info: &SnapshotInfo) -> Self {
        let manifest = &info.manifest;
        let ready = manifest
            .parts
            .all()
            .iter()
            .find(|part| part.name == "ready");
        let since = std::time::SystemTime::UNIX_EPOCH;
        Self {
            key: info.key.as_str().to_owned(),
            machine: manifest.machine.clone(),
            image: manifest.image.clone(),
            ready: ready.map_or(String::new(), |part| part.value.clone()),
            allocated: manifest.usage,
            apparent: manifest.files.values().map(|file| file.size).sum(),
            created: manifest.created,
            last_used: info
                .last_used
                .duration_since(since)
                .unwrap_or_default()
                .as_secs(),
            in_use: info.in_use,
        }
    }
}

/// Snapshots as a table.
fn entries(infos: &[SnapshotInfo]) -> String {
    let rows: Vec<[String; 7]> = infos
        .iter()
        .map(|info| {
            let shown = Shown::of(info);
            [
                info.key.short().to_owned(),
                shown.machine,
                human::line(&shown.ready),
                human::size(shown.allocated),
                human::size(shown.apparent),
                human::age(info.last_used, info.in_use),
                shown.image,
            ]
        })
        .collect();
    table::table(
        [
            "ID",
            "MACHINE",
            "READY",
            "ON DISK",
            "SIZE",
            "LAST USED",
            "IMAGE",
        ],
        &rows,
    )
}
