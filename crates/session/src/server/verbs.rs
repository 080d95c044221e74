//! From a verb to what does it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::parts::Parts;
use super::{commands, files, telling, waits};
use crate::hub::Hub;
use crate::protocol::{Fault, Verb};

pub(super) async fn perform(
    hub: &Arc<Hub>,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<Value, Fault> {
    match verb {
        Verb::Status => value(&hub.status()),
        Verb::Start { machines, wait } => nothing(start(hub, &machines, wait).await),
        Verb::Shutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            nothing(hub.machine(&machine)?.shutdown(within).await)
        }
        Verb::Crash { machine } => nothing(hub.machine(&machine)?.crash().await),
        Verb::Reboot { machine } => nothing(hub.machine(&machine)?.reboot().await),
        Verb::WaitShutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let off = hub.machine(&machine)?.wait_shutdown();
            nothing(
                hub.waiting(&machine, "the machine to be off", within, off)
                    .await,
            )
        }
        Verb::WaitReady { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let ready = hub.machine(&machine)?.ready();
            nothing(
                hub.waiting(&machine, "the machine to be ready", within, ready)
                    .await,
            )
        }
        Verb::Execute { .. } | Verb::Retry { .. } | Verb::Spawn { .. } => {
            value(&commands::perform(hub, verb, parts, words).await?)
        }
        Verb::CopyIn { .. } | Verb::CopyOut { .. } => nothing(files::copy(hub, verb).await),
        Verb::WaitUnit { .. }
        | Verb::WaitPort { .. }
        | Verb::WaitFile { .. }
        | Verb::WaitSocket { .. } => nothing(waits::perform(hub, verb).await),
        Verb::Console { .. } | Verb::Events { .. } => {
            nothing(telling::stream(hub, verb, parts, words).await)
        }
        Verb::Log { .. }
        | Verb::SubtestStarted { .. }
        | Verb::SubtestFinished { .. }
        | Verb::Report { .. }
        | Verb::Continue
        | Verb::Down => nothing(telling::perform(hub, verb)),
        // The connection itself takes these.
        Verb::Send { .. }
        | Verb::CloseInput { .. }
        | Verb::Signal { .. }
        | Verb::Cancel { .. }
        | Verb::Done { .. }
        | Verb::Shell { .. } => Err(Fault::usage("this cannot be asked here")),
    }
}

/// Begins to start machines; with `wait`, waits until they are up.
async fn start(hub: &Hub, names: &[String], wait: bool) -> Result<(), Fault> {
    let mut machines = Vec::new();
    if names.is_empty() {
        machines.extend(hub.machines.values().cloned());
    }
    for name in names {
        machines.push(hub.machine(name)?.clone());
    }
    if wait {
        let starts = machines.iter().map(|machine| machine.start());
        futures_util::future::try_join_all(starts).await?;
    } else {
        for machine in machines {
            // Who needs the machine gets to know that it did not start.
            hub.detach(async move { drop(machine.start().await) });
        }
    }
    Ok(())
}

fn value<T: Serialize>(answer: &T) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(Fault::machinery)
}

fn nothing(done: Result<(), Fault>) -> Result<Value, Fault> {
    done.map(|()| Value::Null)
}
