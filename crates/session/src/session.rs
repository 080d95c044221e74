//! A running lab.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::standin::Agent;

use crate::protocol::{Fault, Status};
use crate::{Cancel, Engine, Follower, PathError};

/// What a session runs.
#[derive(Debug, Clone)]
pub struct Brief {
    /// The machines and networks.
    pub lab: Arc<crate::standin::Lab>,
    /// The lab file, for people.
    pub file: PathBuf,
    /// The directory that relative paths of the lab are relative to.
    pub base: PathBuf,
    /// The test that it is for, where it is for one.
    pub test: Option<String>,
    /// Boot machines with the agent as their init and nothing else: quick, for single commands.
    pub agent_only: bool,
}

/// A running lab. Clones are the same session.
#[derive(Clone)]
pub struct Session {}

impl Session {
    /// Makes a session: its directory, its guard, its event log, its VLANs and its socket. No image
    /// is built and no machine started yet.
    ///
    /// # Errors
    /// Its directory, a VLAN or the socket cannot be made.
    pub async fn open(engine: &Engine, brief: Brief) -> Result<Self, SessionError> {
        todo!("{brief:?} {:?}", engine.swept())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        todo!()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        todo!()
    }

    /// Builds the images that are missing, all at once, so that it is not the first command that
    /// waits for them.
    ///
    /// # Errors
    /// An image cannot be built.
    pub async fn prepare(&self) -> Result<(), Fault> {
        todo!()
    }

    /// Starts machines (all where `machines` is empty), side by side, and waits until their agents
    /// answer.
    ///
    /// # Errors
    /// There is no such machine, or one does not start.
    pub async fn start(&self, machines: &[String]) -> Result<(), Fault> {
        todo!("{machines:?}")
    }

    /// Waits until a machine is as ready as the lab file asks (`ready = ...`). Starts it if needed.
    ///
    /// # Errors
    /// There is no such machine, or it does not start.
    pub async fn ready(&self, machine: &str) -> Result<(), Fault> {
        todo!("{machine}")
    }

    /// The agent of a machine, which is started if needed.
    ///
    /// # Errors
    /// There is no such machine, or it does not start.
    pub async fn agent(&self, machine: &str) -> Result<Agent, Fault> {
        todo!("{machine}")
    }

    /// How its machines are.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Its events, from the first on.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn events(&self) -> std::io::Result<Follower> {
        todo!()
    }

    /// Ends when a client has asked for the end of the session (`machinist down`).
    pub async fn down_asked(&self) {
        todo!()
    }

    /// Ends the session: powers its machines off, one by one in no order, kills what does not obey,
    /// and removes everything. `hurry` thrown: kills at once.
    pub async fn close(&self, hurry: &Cancel) {
        todo!("{hurry:?}")
    }
}

/// A session could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its guard.
    #[error(transparent)]
    Guard(#[from] crate::GuardError),
}
