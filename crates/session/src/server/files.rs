//! Moving files between this host and machines.

use std::path::Path;
use std::sync::Arc;

use machinist_events::What;

use super::commands::fault;
use crate::control::Control;
use crate::hub::Hub;
use crate::protocol::{Fault, Verb};

/// Moves a file or a tree.
pub(super) async fn copy(hub: &Hub, verb: Verb) -> Result<(), Fault> {
    match verb {
        Verb::CopyIn {
            machine,
            host,
            guest,
        } => copy_in(hub, &machine, &host, Path::new(&guest)).await,
        Verb::CopyOut {
            machine,
            guest,
            host,
        } => copy_out(hub, &machine, Path::new(&guest), &host).await,
        _ => Err(Fault::usage("this cannot be asked here")),
    }
}

pub(crate) async fn copy_in(
    hub: &Hub,
    machine: &str,
    host: &Path,
    guest: &Path,
) -> Result<(), Fault> {
    let what = format!("copying {} to {}", host.display(), guest.display());
    let control = absolute(hub, machine, host)?;
    let agent = control.agent().await?;
    match agent.copy_in(host, guest).await {
        Ok(()) => Ok(()),
        Err(error) => Err(fault(&*control, &what, error).await),
    }
}

pub(crate) async fn copy_out(
    hub: &Hub,
    machine: &str,
    guest: &Path,
    host: &Path,
) -> Result<(), Fault> {
    let what = format!("copying {} to {}", guest.display(), host.display());
    let control = absolute(hub, machine, host)?;
    let agent = control.agent().await?;
    match agent.copy_out(guest, host).await {
        Ok(copied) => {
            for (path, kind) in copied.skipped {
                let text = format!("{what}: left out {} ({kind})", path.display());
                hub.log.emit_of(machine, What::Warning { text });
            }
            Ok(())
        }
        Err(error) => Err(fault(&*control, &what, error).await),
    }
}

pub(super) fn absolute(hub: &Hub, machine: &str, host: &Path) -> Result<Arc<dyn Control>, Fault> {
    if host.is_absolute() {
        hub.machine(machine)
    } else {
        // The engine runs in another directory than the client.
        Err(Fault::usage(format!(
            "paths of the host must be absolute, and {} is not",
            host.display()
        )))
    }
}
