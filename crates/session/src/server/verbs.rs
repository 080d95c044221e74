//! From a verb to what does it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::parts::Parts;
use super::{commands, files, forward, life, machine, telling, waits};
use crate::hub::Hub;
use crate::pause;
use crate::protocol::{Fault, Verb};

pub(super) async fn perform(
    hub: &Arc<Hub>,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<Value, Fault> {
    let checkpoints = &hub.checkpoints;
    match verb {
        Verb::Status => value(&hub.status()),
        Verb::Start { .. }
        | Verb::Shutdown { .. }
        | Verb::Crash { .. }
        | Verb::Reboot { .. }
        | Verb::WaitShutdown { .. }
        | Verb::WaitReady { .. } => nothing(life::perform(hub, verb).await),
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
        | Verb::SetVariables { .. }
        | Verb::Monitor { .. }
        | Verb::Qmp { .. }
        | Verb::QmpEvents { .. }
        | Verb::Screenshot { .. }
        | Verb::ConsoleSend { .. }
        | Verb::Link { .. } => machine::perform(hub, verb, parts, words).await,
        Verb::Checkpoint { name } => value(&checkpoints.take(hub, name).await?),
        Verb::Clone { machine, count } => value(&checkpoints.clone(hub, &machine, count).await?),
        Verb::Restore { name } => value(&checkpoints.back_to(hub, &name).await?),
        Verb::Checkpoints => value(&checkpoints.list()),
        Verb::DropCheckpoint { name } => nothing(checkpoints.drop_one(hub, &name).await),
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

pub(super) fn value<T: Serialize>(answer: &T) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(Fault::machinery)
}

pub(super) fn nothing(done: Result<(), Fault>) -> Result<Value, Fault> {
    done.map(|()| Value::Null)
}
