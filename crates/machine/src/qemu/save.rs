//! Saving the state of a VM's devices.
//!
//! Not by a migration, which also wants to save memory: what of that is to be kept, and how, is
//! decided elsewhere, and one command that answers when it is done is faster than a migration that
//! has to be watched.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::qmp::{Execute, Nothing, Qmp, QmpError, Stop};

/// Why a VM cannot be saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// QEMU does not do it, or has ended.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A device of it cannot be saved.
    #[error("{0}")]
    Blocked(String),
}

/// What of QEMU's migration we ask: what stands in its way.
#[derive(Debug, Serialize)]
struct QueryMigrate {}

#[derive(Debug, Deserialize)]
struct Migration {
    #[serde(default, rename = "blocked-reasons")]
    blocked: Vec<String>,
}

impl Execute for QueryMigrate {
    const NAME: &'static str = "query-migrate";
    type Answer = Migration;
}

/// Writes the state of all devices to a file. Its name is history: nothing of Xen is needed.
#[derive(Debug, Serialize)]
struct SaveDevices<'a> {
    filename: &'a Path,
    /// Whether the machine goes on by itself.
    live: bool,
}

impl Execute for SaveDevices<'_> {
    const NAME: &'static str = "xen-save-devices-state";
    type Answer = Nothing;
}

/// Stops the VM, and saves the state of its devices in the file `state`. The VM stands still after
/// that. Its memory is where it was, and its disks are up to date.
///
/// # Errors
/// A device forbids it, or the file cannot be written. The VM stands still or runs, as it was when
/// that was seen.
pub(crate) async fn save_devices(qmp: &Qmp, state: &Path) -> Result<(), SaveError> {
    // The command below does not ask that.
    let Migration { blocked } = qmp.perform(&QueryMigrate {}).await?;
    if let Some(reason) = blocked.into_iter().next() {
        return Err(SaveError::Blocked(reason));
    }
    qmp.perform(&Stop {}).await?;
    let save = SaveDevices {
        filename: state,
        live: false,
    };
    qmp.perform(&save).await?;
    Ok(())
}
