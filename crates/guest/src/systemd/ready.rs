//! Whether the system has started.

use std::fmt;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Manager, SystemdError};

/// The system's state has no signal of its own but at the end of starting.
const LOOK: Duration = Duration::from_millis(250);

/// How a system is as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemState {
    /// Before and while units are started.
    Starting,
    /// All is well.
    Running,
    /// It has started, and some units failed.
    Degraded,
    /// Rescue or emergency mode.
    Maintenance,
    /// On its way down.
    Stopping,
    /// What systemd says is not known here.
    Other,
}

impl SystemState {
    fn parse(text: &str) -> Self {
        match text {
            "initializing" | "starting" => Self::Starting,
            "running" => Self::Running,
            "degraded" => Self::Degraded,
            "maintenance" => Self::Maintenance,
            "stopping" => Self::Stopping,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for SystemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Maintenance => "maintenance",
            Self::Stopping => "stopping",
            Self::Other => "in a state that is not known",
        })
    }
}

impl Manager {
    /// How the system is.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn system_state(&self, deadline: Instant) -> Result<SystemState, SystemdError> {
        if self.is_plain() {
            let said = self.systemctl(&["is-system-running"]).await?;
            return Ok(SystemState::parse(said.trim()));
        }
        let bus = self.bus(deadline).await?;
        let text = bus.manager_property("SystemState").await?;
        Ok(SystemState::parse(&text))
    }

    /// Waits until the system has started: [`SystemState::Running`], [`SystemState::Degraded`],
    /// or [`SystemState::Maintenance`], of which it does not get out by itself.
    ///
    /// # Errors
    /// It has not until the deadline, or systemd cannot be asked.
    pub async fn wait_ready(&self, deadline: Instant) -> Result<SystemState, SystemdError> {
        let mut last = SystemState::Starting;
        loop {
            match timeout_at(deadline, self.wait_ready_once(deadline, &mut last)).await {
                Ok(Err(error)) if error.broke_off() => self.forget().await,
                Ok(result) => return result,
                Err(_) => {
                    return Err(SystemdError::TimedOut {
                        what: "the system to have started".into(),
                        state: last.to_string(),
                    });
                }
            }
        }
    }

    async fn wait_ready_once(
        &self,
        deadline: Instant,
        last: &mut SystemState,
    ) -> Result<SystemState, SystemdError> {
        let over = |state: &SystemState| {
            use SystemState::{Degraded, Maintenance, Running};
            matches!(state, Running | Degraded | Maintenance)
        };
        while self.is_plain() {
            *last = self.system_state(deadline).await?;
            if over(last) {
                return Ok(*last);
            }
            sleep(LOOK).await;
        }
        let bus = self.bus(deadline).await?;
        let mut signals = bus.signals();
        loop {
            *last = self.system_state(deadline).await?;
            if over(last) {
                return Ok(*last);
            }
            let finished = async {
                loop {
                    match signals.recv().await {
                        Ok(signal) if signal.member != "StartupFinished" => {}
                        Err(RecvError::Closed) => std::future::pending().await,
                        _ => return,
                    }
                }
            };
            tokio::select! {
                () = finished => {}
                () = sleep(LOOK) => {}
            }
        }
    }
}
