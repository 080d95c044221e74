//! From a verb to what does it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::parts::Parts;
use super::{commands, files, forward, machine, telling, waits};
use crate::hub::Hub;
use crate::pause;
use crate::protocol::{Fault, Verb};

pub(super) async fn perform(
    hub: &Arc<Hub>,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<Value, Fault> {
    match verb {
        Verb::Status => value(&hub.status()),
        Verb::Start {
            machines,
            wait,
            allow_reboot,
        } => nothing(start(hub, &machines, wait, allow_reboot).await),
        Verb::Shutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            nothing(hub.machine(&machine)?.shutdown(within).await)
        }
        Verb::Crash { machine } => nothing(hub.machine(&machine)?.crash().await),
        Verb::Reboot { machine } => nothing(hub.machine(&machine)?.reboot().await),
        Verb::WaitShutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let off = control.wait_shutdown();
            nothing(
                hub.waiting(&machine, "the machine to be off", within, off)
                    .await,
            )
        }
        Verb::WaitReady { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let ready = control.ready();
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
        | Verb::SectionStarted { .. }
        | Verb::SectionFinished { .. }
        | Verb::ShowConsoles { .. }
        | Verb::SubtestStarted { .. }
        | Verb::SubtestFinished { .. }
        | Verb::Report { .. }
        | Verb::Continue
        | Verb::Down => nothing(telling::perform(hub, verb)),
        Verb::Release { .. }
        | Verb::Connect { .. }
        | Verb::SwitchRoot { .. }
        | Verb::Describe { .. }
        | Verb::AddMachine { .. }
        | Verb::SetStateDir { .. }
        | Verb::Monitor { .. }
        | Verb::Qmp { .. }
        | Verb::QmpEvents { .. }
        | Verb::Screenshot { .. }
        | Verb::ConsoleSend { .. }
        | Verb::Link { .. } => machine::perform(hub, verb, parts, words).await,
        Verb::Forward { .. } => value(&forward::perform(hub, verb).await?),
        Verb::Ssh { machine } => value(&forward::ssh(hub, &machine)?),
        Verb::Breakpoint { failure } => nothing(pause::at_breakpoint(hub, failure).await),
        // The connection itself takes these.
        Verb::Send { .. }
        | Verb::CloseInput { .. }
        | Verb::Signal { .. }
        | Verb::Cancel { .. }
        | Verb::Done { .. }
        | Verb::Shell { .. }
        | Verb::Dial { .. } => Err(Fault::usage("this cannot be asked here")),
    }
}

/// Begins to start machines; with `wait`, waits until they are up.
async fn start(
    hub: &Hub,
    names: &[String],
    wait: bool,
    allow_reboot: Option<bool>,
) -> Result<(), Fault> {
    let mut machines = Vec::new();
    if names.is_empty() {
        machines.extend(hub.all().into_iter().map(|(_, machine)| machine));
    }
    for name in names {
        machines.push(hub.machine(name)?);
    }
    if wait {
        let starts = machines.iter().map(|machine| machine.start(allow_reboot));
        futures_util::future::try_join_all(starts).await?;
    } else {
        for machine in machines {
            // Who needs the machine gets to know that it did not start.
            hub.detach(async move { drop(machine.start(allow_reboot).await) });
        }
    }
    Ok(())
}

pub(super) fn value<T: Serialize>(answer: &T) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(Fault::machinery)
}

pub(super) fn nothing(done: Result<(), Fault>) -> Result<Value, Fault> {
    done.map(|()| Value::Null)
}
