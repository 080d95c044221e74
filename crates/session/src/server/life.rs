//! Machines come and go.

use crate::hub::Hub;
use crate::protocol::{Fault, Verb};

pub(super) async fn perform(hub: &Hub, verb: Verb) -> Result<(), Fault> {
    match verb {
        Verb::Start {
            machines,
            wait,
            allow_reboot,
        } => start(hub, &machines, wait, allow_reboot).await,
        Verb::Shutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            hub.machine(&machine)?.shutdown(within).await
        }
        Verb::Crash { machine } => hub.machine(&machine)?.crash().await,
        Verb::Reboot { machine } => hub.machine(&machine)?.reboot().await,
        Verb::WaitShutdown { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let off = control.wait_shutdown();
            hub.waiting(&machine, "the machine to be off", within, off)
                .await
        }
        Verb::WaitReady { machine, timeout } => {
            let within = hub.limit(timeout)?;
            let control = hub.machine(&machine)?;
            let ready = control.ready();
            hub.waiting(&machine, "the machine to be ready", within, ready)
                .await
        }
        _ => Err(Fault::usage("this cannot be asked here")),
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
        let starts = machines
            .into_iter()
            .map(|machine| machine.start(allow_reboot));
        futures_util::future::try_join_all(starts).await?;
    } else {
        let launches = machines.iter().map(|machine| machine.launch(allow_reboot));
        let launched = futures_util::future::try_join_all(launches).await?;
        // One that runs is not started once more: it may have been crashed by then.
        let rest = machines.into_iter().zip(launched).filter(|it| !it.1);
        for (machine, _) in rest {
            // Said now, done later. Who needs the machine gets to know that it did not start.
            let start = machine.start(allow_reboot);
            hub.detach(async { drop(start.await) });
        }
    }
    Ok(())
}
