//! A manager: the system's, or a user's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use zbus::OwnedObjectPath;

use super::SystemdError;
use super::bus::{Bus, MANAGER, MANAGER_INTERFACE};
use crate::agent::Agent;
use crate::command::Command;
use crate::error::GuestError;

/// A job that systemd has not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it is about.
    pub unit: String,
    /// `start`, `stop`, ...
    pub kind: String,
    /// `waiting` or `running`.
    pub state: String,
}

/// systemd in the guest, as manager of the system or of one user's session.
pub struct Manager {
    pub(super) agent: Agent,
    socket: PathBuf,
    /// The user whose manager it is, and that one's number.
    pub(super) user: Option<(String, String)>,
    pub(super) bus: Mutex<Option<Arc<Bus>>>,
}

impl Manager {
    /// Reaches the system's manager, or that of `user`. Waits until it is there.
    ///
    /// # Errors
    /// It is not there until the deadline, there is no such user, or the channel ended.
    pub async fn connect(
        agent: &Agent,
        user: Option<&str>,
        deadline: Instant,
    ) -> Result<Self, SystemdError> {
        let user = match user {
            None => None,
            Some(user) => Some((user.to_owned(), uid(agent, user).await?)),
        };
        let socket = match &user {
            None => "/run/systemd/private".into(),
            Some((_, uid)) => format!("/run/user/{uid}/systemd/private").into(),
        };
        let manager = Self {
            agent: agent.clone(),
            socket,
            user,
            bus: Mutex::new(None),
        };
        if manager.is_plain() {
            manager.until_it_answers(deadline).await?;
        } else {
            manager.reconnect(deadline).await?;
        }
        Ok(manager)
    }

    /// Whether `systemctl` is asked: a shell in the agent's place has no connections to give.
    pub(super) fn is_plain(&self) -> bool {
        self.agent.info().plain
    }

    /// The conversation; begun anew where the last one broke off.
    pub(super) async fn bus(&self, deadline: Instant) -> Result<Arc<Bus>, SystemdError> {
        if let Some(bus) = &*self.bus.lock().await {
            return Ok(Arc::clone(bus));
        }
        self.reconnect(deadline).await
    }

    /// Forgets a conversation that broke off.
    pub(super) async fn forget(&self) {
        *self.bus.lock().await = None;
    }

    /// Ends the conversation, before anything else is asked of the agent.
    pub(crate) async fn hang_up(self) {
        if let Some(bus) = self.bus.into_inner().and_then(Arc::into_inner) {
            bus.hang_up().await;
        }
    }

    async fn reconnect(&self, deadline: Instant) -> Result<Arc<Bus>, SystemdError> {
        loop {
            let result = match self.agent.open_unix(&self.socket).await {
                Ok(stream) => Bus::new(stream).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(bus) => {
                    let bus = Arc::new(bus);
                    *self.bus.lock().await = Some(Arc::clone(&bus));
                    return Ok(bus);
                }
                // Not there yet, or gone: systemd is on its way. It is waited for only then, since
                // that knocks at the socket, and systemd tells the console of who knocks and leaves.
                Err(SystemdError::Guest(GuestError::Refused { .. }))
                    if Instant::now() < deadline =>
                {
                    self.agent
                        .wait_socket(&self.socket, false, deadline)
                        .await?;
                }
                Err(error) if error.broke_off() && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The jobs that are not finished.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn jobs(&self, deadline: Instant) -> Result<Vec<Job>, SystemdError> {
        type Listed = (
            u32,
            String,
            String,
            String,
            OwnedObjectPath,
            OwnedObjectPath,
        );
        if self.is_plain() {
            return self.plain_jobs().await;
        }
        let bus = self.bus(deadline).await?;
        let reply = bus
            .call(MANAGER, MANAGER_INTERFACE, "ListJobs", &())
            .await?;
        let jobs: Vec<Listed> = reply.body().deserialize()?;
        Ok(jobs
            .into_iter()
            .map(|(_, unit, kind, state, _, _)| Job { unit, kind, state })
            .collect())
    }

    /// The names of units that failed.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn failed_units(&self, deadline: Instant) -> Result<Vec<String>, SystemdError> {
        type Listed = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        if self.is_plain() {
            return self.plain_failed_units().await;
        }
        let bus = self.bus(deadline).await?;
        let states = (vec!["failed"],);
        let reply = bus
            .call(MANAGER, MANAGER_INTERFACE, "ListUnitsFiltered", &states)
            .await?;
        let units: Vec<Listed> = reply.body().deserialize()?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }
}

async fn uid(agent: &Agent, user: &str) -> Result<String, SystemdError> {
    let output = agent.output(&Command::argv(["id", "-u", user])).await?;
    let uid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.success() && uid.parse::<u32>().is_ok() {
        true => Ok(uid),
        false => Err(SystemdError::NoUser {
            user: user.to_owned(),
        }),
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
