//! The state of a script's VM, saved to a file and loaded from one.
//!
//! By a migration that leaves out the guest's memory, which is a file already, and has what other
//! memory there is: a start script's VM may have a screen, and its picture is in memory of its own.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::chain;
use crate::qemu::qmp::{Execute, Nothing, Qmp, QmpEvents, Stop};

#[derive(Debug, Serialize)]
struct SetCapabilities {
    capabilities: [Capability; 2],
}

#[derive(Debug, Serialize)]
struct Capability {
    capability: &'static str,
    state: bool,
}

impl Execute for SetCapabilities {
    const NAME: &'static str = "migrate-set-capabilities";
    type Answer = Nothing;
}

#[derive(Debug, Serialize)]
struct Save {
    uri: String,
}

impl Execute for Save {
    const NAME: &'static str = "migrate";
    type Answer = Nothing;
}

#[derive(Debug, Serialize)]
struct Load {
    uri: String,
}

impl Execute for Load {
    const NAME: &'static str = "migrate-incoming";
    type Answer = Nothing;
}

/// Lets the virtual processors go on.
#[derive(Debug, Serialize)]
struct Continue {}

impl Execute for Continue {
    const NAME: &'static str = "cont";
    type Answer = Nothing;
}

/// Why a VM is not saved, in one sentence.
type Reason = String;

/// Makes the VM stand still and writes its state to the file `state`. Its memory is where it was,
/// and its disks are up to date and nobody's.
pub(super) async fn save(qmp: &Qmp, state: &Path) -> Result<(), Reason> {
    let status = qmp.query("query-migrate").await;
    let status = status.map_err(|error| chain(&error))?;
    if let Some(reason) = status["blocked-reasons"][0].as_str() {
        return Err(reason.to_owned());
    }
    let events = prepare(qmp).await?;
    perform(qmp, &Stop {}).await?;
    perform(qmp, &Save { uri: uri(state)? }).await?;
    end_of_migration(qmp, events).await
}

/// Loads a state into a QEMU that waits for one. The machine stands still then.
pub(super) async fn load(qmp: &Qmp, state: &Path) -> Result<(), Reason> {
    let events = prepare(qmp).await?;
    perform(qmp, &Load { uri: uri(state)? }).await?;
    end_of_migration(qmp, events).await
}

pub(super) async fn go_on(qmp: &Qmp) -> Result<(), Reason> {
    perform(qmp, &Continue {}).await.map(drop)
}

async fn prepare(qmp: &Qmp) -> Result<QmpEvents, Reason> {
    let on = |capability| Capability {
        capability,
        state: true,
    };
    let capabilities = [on("x-ignore-shared"), on("events")];
    let events = qmp.events();
    perform(qmp, &SetCapabilities { capabilities }).await?;
    Ok(events)
}

async fn perform<C: Execute>(qmp: &Qmp, command: &C) -> Result<C::Answer, Reason> {
    let answer = qmp.perform(command).await;
    answer.map_err(|error| chain(&error))
}

fn uri(path: &Path) -> Result<String, Reason> {
    let path = path.to_str();
    let path = path.ok_or("the path of the snapshots is not UTF-8")?;
    Ok(format!("file:{path}"))
}

/// Waits until QEMU says that it is done.
async fn end_of_migration(qmp: &Qmp, mut events: QmpEvents) -> Result<(), Reason> {
    while let Some(event) = events.next().await {
        if event["event"] != "MIGRATION" {
            continue;
        }
        match event["data"]["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let status = qmp.query("query-migrate").await.unwrap_or(Value::Null);
                let why = status["error-desc"].as_str();
                return Err(why.unwrap_or("QEMU cannot do it").to_owned());
            }
            _ => {}
        }
    }
    Err("QEMU ended over it".to_owned())
}
