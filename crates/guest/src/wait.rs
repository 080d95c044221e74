//! Waiting for what the guest does.

use std::path::Path;

use machinist_wire::message::{Condition, Request};
use tokio::time::{Instant, timeout_at};

use crate::agent::Agent;
use crate::error::GuestError;

impl Agent {
    /// Waits until a path exists. Links are followed.
    ///
    /// # Errors
    /// It does not until the deadline, or the channel ended.
    pub async fn wait_file(&self, path: &Path, deadline: Instant) -> Result<(), GuestError> {
        let what = format!("the file {}", path.display());
        self.wait(Condition::File(path.into()), what, deadline)
            .await
    }

    /// Waits until a TCP port is open, or until it is closed. `address` is as seen in the guest.
    ///
    /// # Errors
    /// It is not until the deadline, or the channel ended.
    pub async fn wait_port(
        &self,
        address: &str,
        port: u16,
        open: bool,
        deadline: Instant,
    ) -> Result<(), GuestError> {
        let state = if open { "open" } else { "closed" };
        let what = format!("port {port} of {address} to be {state}");
        let host = address.to_owned();
        self.wait(Condition::Port { host, port, open }, what, deadline)
            .await
    }

    /// Waits until a Unix socket takes connections, or datagrams.
    ///
    /// # Errors
    /// It does not until the deadline, or the channel ended.
    pub async fn wait_socket(
        &self,
        path: &Path,
        datagram: bool,
        deadline: Instant,
    ) -> Result<(), GuestError> {
        let what = format!("the socket {}", path.display());
        let path = path.into();
        self.wait(Condition::Socket { path, datagram }, what, deadline)
            .await
    }

    async fn wait(
        &self,
        condition: Condition,
        what: String,
        deadline: Instant,
    ) -> Result<(), GuestError> {
        let handle = self.link.open(&Request::Wait(condition))?;
        match timeout_at(deadline, handle.done()).await {
            Ok(result) => result,
            Err(_) => Err(GuestError::TimedOut { what }),
        }
    }
}
