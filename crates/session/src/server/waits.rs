//! Waiting for what happens in a machine.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machinist_guest::{Agent, GuestError};
use regex::Regex;
use tokio::time::Instant;

use super::commands::fault;
use crate::control::Control;
use crate::hub::{Hub, MissedUnit, Wait};
use crate::protocol::{Fault, Verb};
use crate::readiness;

/// For waits without a limit: longer than anything lives.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

pub(super) async fn perform(hub: &Hub, verb: Verb) -> Result<(), Fault> {
    match verb {
        Verb::WaitUnit {
            machine,
            unit: name,
            user,
            timeout,
        } => unit(hub, &machine, &name, user.as_deref(), hub.limit(timeout)?).await,
        Verb::WaitPort {
            machine,
            port: number,
            address,
            open,
            timeout,
        } => {
            let within = hub.limit(timeout)?;
            port(hub, &machine, (&address, number), open, within).await
        }
        Verb::WaitFile {
            machine,
            path,
            timeout,
        } => file(hub, &machine, Path::new(&path), hub.limit(timeout)?).await,
        Verb::WaitSocket {
            machine,
            path,
            datagram,
            timeout,
        } => {
            let within = hub.limit(timeout)?;
            socket(hub, &machine, Path::new(&path), datagram, within).await
        }
        _ => Err(Fault::usage("this cannot be asked here")),
    }
}

/// Waits until a TCP port is open, or closed.
pub(crate) async fn port(
    hub: &Hub,
    machine: &str,
    (address, number): (&str, u16),
    open: bool,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let state = if open { "open" } else { "closed" };
    let what = format!("port {number} of {address} to be {state}");
    let deadline = Instant::now() + FOREVER;
    let control = hub.machine(machine)?;
    let work = async {
        let agent = control.agent().await?;
        let done = agent.wait_port(address, number, open, deadline).await;
        checked(&*control, &what, done).await
    };
    hub.waiting(machine, &what, within, work).await
}

/// Waits until a path exists.
pub(crate) async fn file(
    hub: &Hub,
    machine: &str,
    path: &Path,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let what = format!("the file {}", path.display());
    let deadline = Instant::now() + FOREVER;
    let control = hub.machine(machine)?;
    let work = async {
        let agent = control.agent().await?;
        let done = agent.wait_file(path, deadline).await;
        checked(&*control, &what, done).await
    };
    hub.waiting(machine, &what, within, work).await
}

/// Waits until somebody listens on a Unix socket.
pub(crate) async fn socket(
    hub: &Hub,
    machine: &str,
    path: &Path,
    datagram: bool,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let what = format!("the socket {}", path.display());
    let deadline = Instant::now() + FOREVER;
    let control = hub.machine(machine)?;
    let work = async {
        let agent = control.agent().await?;
        let done = agent.wait_socket(path, datagram, deadline).await;
        checked(&*control, &what, done).await
    };
    hub.waiting(machine, &what, within, work).await
}

/// Waits until the journal has an entry that matches, since the machine's boot.
pub(crate) async fn journal(
    hub: &Hub,
    machine: &str,
    pattern: &Regex,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let what = format!("/{pattern}/ in the journal");
    let deadline = Instant::now() + FOREVER;
    let control = hub.machine(machine)?;
    let work = async {
        let agent = control.agent().await?;
        let wanted = |message: &str| pattern.is_match(message);
        let done = agent.wait_journal(wanted, deadline).await;
        checked(&*control, &what, done).await
    };
    hub.waiting(machine, &what, within, work).await
}

/// Waits until a unit is active.
pub(crate) async fn unit(
    hub: &Hub,
    machine: &str,
    name: &str,
    user: Option<&str>,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let control = hub.machine(machine)?;
    let of = user.map_or(String::new(), |user| format!(" of user {user}"));
    let what = format!("unit {name}{of}");
    let wait = Wait::begin(hub, machine, &what);
    let began = Instant::now();
    let seen = Mutex::new(None);
    let work = async {
        let agent = control.agent().await?;
        let mut tell = |state: String| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.as_ref() != Some(&state) {
                wait.progress(state.clone());
                *seen = Some(state);
            }
        };
        readiness::unit(&agent, name, user, &mut tell).await
    };
    let done = match within {
        None => work.await,
        Some(within) => match tokio::time::timeout(within, work).await {
            Ok(done) => done,
            Err(_) => {
                let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
                let seen = seen.unwrap_or_else(|| "it was not seen yet".to_owned());
                Err(Fault::test(format!(
                    "{machine}: waiting for {what} timed out after {} s: {seen}",
                    crate::hub::seconds(began.elapsed())
                )))
            }
        },
    };
    wait.end(done.is_ok());
    let missed = (done.is_err() && user.is_none()).then(|| MissedUnit {
        machine: machine.to_owned(),
        unit: name.to_owned(),
    });
    *hub.missed_unit
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = missed;
    done
}

/// The last words of the unit that was last waited for in vain.
pub(crate) async fn missed_unit(hub: &Hub, within: Duration) -> Vec<String> {
    let missed = hub
        .missed_unit
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let Some(MissedUnit { machine, unit }) = missed else {
        return Vec::new();
    };
    let Some(agent) = running(hub, &machine).await else {
        return Vec::new();
    };
    let lines = readiness::journal_of(&agent, &unit, within).await;
    let tell = |line| format!("{machine}: {unit}: {line}");
    lines.into_iter().map(tell).collect()
}

/// The units of a machine that have failed; nothing where it does not run.
pub(crate) async fn failed_units(hub: &Hub, machine: &str, within: Duration) -> Vec<String> {
    let Some(agent) = running(hub, machine).await else {
        return Vec::new();
    };
    readiness::failed_units(&agent, within).await
}

/// The agent of a machine, if that runs.
async fn running(hub: &Hub, machine: &str) -> Option<Agent> {
    let control = hub.machine(machine).ok()?;
    if !matches!(control.state(), "up" | "ready") {
        return None;
    }
    control.start(None).await.ok()
}

async fn checked<T>(
    control: &dyn Control,
    what: &str,
    done: Result<T, GuestError>,
) -> Result<T, Fault> {
    match done {
        Ok(done) => Ok(done),
        Err(error) => Err(fault(control, &format!("waiting for {what}"), error).await),
    }
}
