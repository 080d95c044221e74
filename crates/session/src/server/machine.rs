//! What a machine is, and what can be done to its hardware.

use std::path::Path;

use futures_util::StreamExt;
use machinist_machine::Status;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::files;
use super::parts::Parts;
use super::telling::done;
use super::verbs::{nothing, value};
use crate::control::Control;
use crate::hub::{Hub, NewMachine};
use crate::protocol::{Added, Data, Description, Fault, Part, ScriptKind, Verb};

pub(super) async fn perform(
    hub: &Hub,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<Value, Fault> {
    match verb {
        Verb::Release { machine } => nothing(hub.machine(&machine)?.crash().await),
        Verb::Connect {
            machine,
            after,
            timeout,
        } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let up = up_after(&*control, after);
            nothing(
                hub.waiting(&machine, "the machine to be up", within, up)
                    .await,
            )
        }
        Verb::SwitchRoot { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let switched = control.switch_root();
            let what = "the machine to switch its root";
            nothing(hub.waiting(&machine, what, within, switched).await)
        }
        Verb::Describe { machine } => {
            let control = hub.machine(&machine)?;
            value(&describe(hub, machine, &*control))
        }
        Verb::SetStateDir { machine, path } => {
            nothing(hub.machine(&machine)?.set_state_dir(path).await)
        }
        Verb::SetVariables { variables } => {
            let known = hub.variables.as_ref();
            let known = known.ok_or_else(|| Fault::usage("no start scripts run here"))?;
            known.change(variables);
            nothing(Ok(()))
        }
        Verb::AddMachine {
            command,
            name,
            keep_state,
            kind,
        } => value(&add(hub, command, name, keep_state, kind)?),
        Verb::Monitor { machine, command } => {
            value(&hub.machine(&machine)?.monitor(command).await?)
        }
        Verb::Qmp {
            machine,
            execute,
            arguments,
        } => hub.machine(&machine)?.qmp(execute, arguments).await,
        Verb::QmpEvents { machine } => nothing(qmp_events(hub, &machine, parts, words).await),
        Verb::Screenshot { machine, host } => nothing(screenshot(hub, &machine, &host).await),
        Verb::ConsoleSend {
            machine,
            data: Data(data),
        } => nothing(hub.machine(&machine)?.console_send(data).await),
        Verb::Link { machine, vlan, up } => nothing(link(hub, machine, vlan, up).await),
        _ => Err(Fault::usage("this cannot be asked here")),
    }
}

fn describe(hub: &Hub, name: String, control: &dyn Control) -> Description {
    let state = control.state();
    let places = control.places();
    Description {
        name,
        kind: control.kind().to_owned(),
        state: state.to_owned(),
        pid: control.pid(),
        state_dir: places.state,
        shared_dir: places.shared,
        out_dir: hub.facts.driver.as_ref().map(|it| it.out_dir.clone()),
        booted: !matches!(state, "off" | "failed"),
        connected: matches!(state, "up" | "ready"),
        boots: boots(control),
        published: control.published(),
    }
}

fn boots(control: &dyn Control) -> u64 {
    control.status().map_or(0, |status| status.borrow().boots)
}

/// Starts a machine that is off, and waits until it is up, and has come up more often than `after`.
async fn up_after(control: &dyn Control, after: Option<u64>) -> Result<(), Fault> {
    loop {
        control.agent().await?;
        let Some((after, mut status)) = after.zip(control.status()) else {
            return Ok(());
        };
        let next = |now: &Status| now.boots > after || now.state.is_over();
        let again = status.wait_for(next).await.map_err(Fault::machinery)?;
        if again.boots > after {
            return Ok(());
        }
    }
}

fn add(
    hub: &Hub,
    command: String,
    name: Option<String>,
    keep_state: bool,
    kind: ScriptKind,
) -> Result<Added, Fault> {
    let name = match name {
        Some(name) => name,
        None => kind.name_in(&command).ok_or_else(|| {
            Fault::usage(format!(
                "{command}: no name can be read from this, and none is given"
            ))
        })?,
    };
    let name = hub.add(NewMachine {
        name,
        command,
        keep_state,
        kind,
    })?;
    Ok(Added { name, kind })
}

async fn qmp_events(
    hub: &Hub,
    machine: &str,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<(), Fault> {
    let mut events = hub.machine(machine)?.qmp_events().await?;
    let tell = async {
        while let Some(event) = events.next().await {
            parts.send(Part::QmpEvent(event)).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = done(words) => Ok(()),
        told = tell => told,
    }
}

async fn screenshot(hub: &Hub, machine: &str, host: &Path) -> Result<(), Fault> {
    let picture = files::absolute(hub, machine, host)?.screenshot().await?;
    let host = host.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        std::fs::write(&host, picture)
            .map_err(|error| Fault::usage(format!("cannot write {}: {error}", host.display())))
    });
    written.await.map_err(Fault::machinery)?
}

/// Pulls cables, or plugs them in.
async fn link(
    hub: &Hub,
    machine: Option<String>,
    vlan: Option<u32>,
    up: bool,
) -> Result<(), Fault> {
    if let Some(vlan) = vlan.filter(|vlan| !hub.facts.vlans.contains(vlan)) {
        return Err(Fault::usage(format!("there is no VLAN {vlan}")));
    }
    let machines = match &machine {
        Some(name) => vec![hub.machine(name)?],
        None => hub.all().into_iter().map(|(_, machine)| machine).collect(),
    };
    let vlan = match &machines[..] {
        [one] if machine.is_some() && vlan.is_none() => one.vlan_of_block().await?,
        _ => vlan,
    };
    if let Some(links) = hub.links.clone() {
        let pulled =
            tokio::task::spawn_blocking(move || links.set_up(machine.as_deref(), vlan, up));
        pulled.await.map_err(Fault::machinery)?;
    }
    let carriers = machines.iter().map(|machine| machine.carrier(vlan, up));
    futures_util::future::try_join_all(carriers).await.map(drop)
}
