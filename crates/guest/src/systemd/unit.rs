//! Units, and waiting for them.

use std::fmt;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout_at};

use super::bus::{Bus, Signal, text};
use super::{Manager, SystemdError};

/// How often a unit's state is looked at although no signal came: a signal may be lost with the
/// conversation that carried it.
const LOOK: Duration = Duration::from_secs(1);

/// How a unit is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, ...
    pub load: String,
    /// `active`, `inactive`, `activating`, `deactivating`, `failed`, ...
    pub active: String,
    /// What that means for this kind of unit: `running`, `start-pre`, ...
    pub sub: String,
    /// Whether a job for it is pending.
    pub job: bool,
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.load.as_str() {
            "loaded" | "" => write!(f, "{}, {}", self.active, self.sub),
            load => write!(f, "{}, {load}", self.active),
        }
    }
}

/// The full name of a unit: without a suffix it is a service.
#[must_use]
pub fn unit_name(name: &str) -> String {
    const SUFFIXES: [&str; 11] = [
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    match name.rsplit_once('.') {
        Some((_, suffix)) if SUFFIXES.contains(&suffix) => name.to_owned(),
        _ => format!("{name}.service"),
    }
}

/// What a unit's state means to someone who waits for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Active,
    Failed,
    /// Nothing happens to it; whether anything will, the jobs tell.
    Idle,
    Underway,
}

pub(super) fn judge(state: &UnitState) -> Verdict {
    match state.active.as_str() {
        "active" => Verdict::Active,
        "failed" => Verdict::Failed,
        "inactive" if !state.job => Verdict::Idle,
        _ => Verdict::Underway,
    }
}

async fn look(bus: &Bus, path: &str) -> Result<UnitState, SystemdError> {
    let properties = bus.unit_properties(path).await?;
    let get = |name: &str| properties.get(name).and_then(text).unwrap_or_default();
    // A pair of number and path; the number 0 is none.
    let job = properties.get("Job").is_some_and(|job| {
        let job = job.downcast_ref::<zbus::Structure<'_>>();
        job.is_ok_and(|job| {
            let number = job.fields().first().map(|it| it.downcast_ref::<u32>());
            matches!(number, Some(Ok(1..)))
        })
    });
    Ok(UnitState {
        load: get("LoadState"),
        active: get("ActiveState"),
        sub: get("SubState"),
        job,
    })
}

impl Manager {
    /// How a unit is. Loads it where it was not.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn unit_state(
        &self,
        unit: &str,
        deadline: Instant,
    ) -> Result<UnitState, SystemdError> {
        if self.is_plain() {
            return self.plain_unit_state(unit).await;
        }
        let bus = self.bus(deadline).await?;
        let path = bus.load_unit(&unit_name(unit)).await?;
        look(&bus, &path).await
    }

    /// Waits until a unit is active. `progress` hears of every state on the way.
    ///
    /// # Errors
    /// The unit failed; it is inactive and there are no pending jobs, so that nothing will ever
    /// start it; it is not active until the deadline; systemd cannot be asked.
    pub async fn wait_for_unit(
        &self,
        unit: &str,
        deadline: Instant,
        progress: &mut (dyn FnMut(&UnitState) + Send),
    ) -> Result<(), SystemdError> {
        let mut last = UnitState::default();
        let mut note = |state: &UnitState| {
            if last != *state {
                last = state.clone();
                progress(state);
            }
        };
        loop {
            let waiting = self.wait_once(unit, deadline, &mut note);
            match timeout_at(deadline, waiting).await {
                Ok(Err(error)) if error.broke_off() => self.forget().await,
                Ok(result) => return result,
                Err(_) => {
                    return Err(SystemdError::TimedOut {
                        what: format!("unit {unit}"),
                        state: last.to_string(),
                    });
                }
            }
        }
    }

    /// Waits for a unit within one conversation.
    async fn wait_once(
        &self,
        unit: &str,
        deadline: Instant,
        note: &mut (dyn FnMut(&UnitState) + Send),
    ) -> Result<(), SystemdError> {
        if self.is_plain() {
            return self.plain_wait_for_unit(unit, note).await;
        }
        let bus = self.bus(deadline).await?;
        // First listen, then look: what happens in between is not lost.
        let mut signals = bus.signals();
        let path = bus.load_unit(&unit_name(unit)).await?;
        loop {
            let state = look(&bus, &path).await?;
            note(&state);
            let unit = || unit.to_owned();
            match judge(&state) {
                Verdict::Active => return Ok(()),
                Verdict::Failed => return Err(SystemdError::Failed { unit: unit() }),
                Verdict::Idle if self.jobs(deadline).await?.is_empty() => {
                    // A job may have ended between the two questions.
                    if matches!(judge(&look(&bus, &path).await?), Verdict::Idle) {
                        return Err(SystemdError::Inactive { unit: unit() });
                    }
                }
                Verdict::Idle | Verdict::Underway => {
                    let idle = matches!(judge(&state), Verdict::Idle);
                    tokio::select! {
                        () = relevant(&mut signals, &path, idle) => {}
                        () = tokio::time::sleep(LOOK) => {}
                        error = bus.closed() => return Err(error),
                    }
                }
            }
        }
    }
}

/// Waits for a signal that may change the verdict on a unit, and takes all that wait behind it.
async fn relevant(signals: &mut Receiver<Signal>, path: &str, idle: bool) {
    let matters = |signal: &Signal| {
        signal.path == path || idle && matches!(signal.member.as_str(), "JobRemoved" | "Reloading")
    };
    loop {
        match signals.recv().await {
            Ok(signal) if !matters(&signal) => continue,
            Ok(_) | Err(RecvError::Lagged(_)) => break,
            // The bus says why.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
    while matches!(signals.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_suffix_are_services() {
        assert_eq!(unit_name("nginx"), "nginx.service");
        assert_eq!(unit_name("multi-user.target"), "multi-user.target");
        assert_eq!(unit_name("getty@tty1.5"), "getty@tty1.5.service");
    }
}
