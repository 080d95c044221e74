//! The handle.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machinist_wire::Info;
use machinist_wire::message::{Address, Identity, Power, Reply, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, interval_at, timeout};

use crate::alive::PATIENCE;
use crate::command::{Command, Output};
use crate::driver::drive;
use crate::error::{ChannelError, ConnectError, GuestError};
use crate::link::{Link, Status};
use crate::process::Process;
use crate::stream::Stream;

/// Between two hellos, until one is answered.
const HELLO: Duration = Duration::from_secs(1);

/// How long a machine may take between its configuration and the next agent's hello.
const HAND_OVER: Duration = Duration::from_secs(60);

/// An agent in a machine. Clones speak to the same one; the channel closes with the last of them
/// (and of the processes and streams made from them).
#[derive(Clone)]
pub struct Agent {
    pub(crate) link: Arc<Link>,
}

impl Agent {
    /// Finds the agent at the other end of `io`, skipping whatever else comes from there first.
    /// Must be called within a tokio runtime, where a task then serves the channel.
    ///
    /// # Errors
    /// No agent answered `within` that time, it speaks another version, or the channel ended.
    pub async fn connect<T>(io: T, within: Duration) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::connect_with(io, within, PATIENCE).await
    }

    /// As [`Agent::connect`], with another patience than a minute: an agent of which something is
    /// wanted and that says nothing for so long is asked for a sign of life, and when it gives none
    /// for so long again, the channel ends with [`ChannelError::Silent`].
    ///
    /// # Errors
    /// As [`Agent::connect`].
    pub async fn connect_with<T>(
        io: T,
        within: Duration,
        patience: Duration,
    ) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (link, shared) = Link::new();
        shared.lock().say_hello();
        tokio::spawn(drive(io, shared, patience));
        let agent = Self { link };
        match timeout(within, agent.next_agent(0)).await {
            Ok(Ok(())) => Ok(agent),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ConnectError::TimedOut { within }),
        }
    }

    /// Waits until more agents have answered here than there were.
    async fn next_agent(&self, before: u32) -> Result<(), ChannelError> {
        let mut status = self.link.status();
        let mut hello = interval_at(Instant::now() + HELLO, HELLO);
        let mut found =
            std::pin::pin!(status.wait_for(|it| it.agents > before || it.dead.is_some()));
        loop {
            tokio::select! {
                status = &mut found => return match status {
                    Ok(status) => status.dead.clone().map_or(Ok(()), Err),
                    Err(_) => Err(ChannelError::Closed),
                },
                _ = hello.tick() => self.link.hello_again(),
            }
        }
    }

    fn status(&self) -> Status {
        self.link.status().borrow().clone()
    }

    /// What the agent says of itself and of the machine.
    #[must_use]
    pub fn info(&self) -> Info {
        self.status().info
    }

    /// Why the channel ended, if it has.
    #[must_use]
    pub fn reason(&self) -> Option<ChannelError> {
        self.status().dead
    }

    /// Waits until the channel ends, and says why.
    pub async fn closed(&self) -> ChannelError {
        let mut status = self.link.status();
        match status.wait_for(|status| status.dead.is_some()).await {
            Ok(status) => status.dead.clone().unwrap_or(ChannelError::Closed),
            Err(_) => ChannelError::Closed,
        }
    }

    /// Says whether the machine was made to stand still: as long as it does, its agent's silence
    /// means nothing.
    pub fn set_standing(&self, standing: bool) {
        self.link.set_standing(standing);
    }

    /// Runs a command, and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started (no such program, directory or user), or the channel ended.
    pub async fn spawn(&self, command: &Command) -> Result<Process, GuestError> {
        Process::spawn(&self.link, command).await
    }

    /// Runs a command and collects what it prints.
    ///
    /// # Errors
    /// It cannot be started, or the channel ended. A command that fails is no error.
    pub async fn output(&self, command: &Command) -> Result<Output, GuestError> {
        self.spawn(command).await?.output(&[]).await
    }

    /// Runs a command, gives it `input` to read, and collects what it prints. The command must
    /// have been given a [`stdin`](Command::stdin).
    ///
    /// # Errors
    /// As [`Agent::output`].
    pub async fn output_with(&self, command: &Command, input: &[u8]) -> Result<Output, GuestError> {
        self.spawn(command).await?.output(input).await
    }

    /// Connects to a socket inside the guest.
    ///
    /// # Errors
    /// Nobody takes the connection, or the channel ended.
    pub async fn open(&self, address: Address) -> Result<Stream, GuestError> {
        let handle = self.link.open(&Request::Connect(address))?;
        handle.done().await?;
        Ok(Stream::new(handle))
    }

    /// Connects to a Unix socket inside the guest.
    ///
    /// # Errors
    /// As [`Agent::open`].
    pub async fn open_unix(&self, path: impl Into<PathBuf>) -> Result<Stream, GuestError> {
        let path: PathBuf = path.into();
        self.open(Address::Unix(path.into_os_string().into())).await
    }

    /// Tells a machine whose init is the agent who it is. Where the machine has an init of its
    /// own, that one starts now, and this returns when the agent is there again.
    ///
    /// # Errors
    /// The agent is not the machine's init, part of it cannot be done, or the channel ended.
    pub async fn configure(&self, identity: &Identity) -> Result<(), GuestError> {
        let before = self.status().agents;
        let handle = self.link.open(&Request::Configure(identity.clone()))?;
        self.link.expect_restart(true);
        let result = self.configured(&handle, before).await;
        self.link.expect_restart(false);
        result
    }

    async fn configured(
        &self,
        handle: &crate::link::Handle,
        before: u32,
    ) -> Result<(), GuestError> {
        match handle.reply().await? {
            Reply::Configured { restarts: false } => Ok(()),
            Reply::Configured { restarts: true } => {
                match timeout(HAND_OVER, self.next_agent(before)).await {
                    Ok(result) => Ok(result?),
                    Err(_) => Err(GuestError::TimedOut {
                        what: "the agent to come back after the machine was configured".into(),
                    }),
                }
            }
            _ => Err(ChannelError::Unexpected("another reply than configured").into()),
        }
    }

    /// Powers off a machine whose init is the agent. Returns when the channel has ended.
    ///
    /// # Errors
    /// The agent is not the machine's init.
    pub async fn power_off(&self) -> Result<(), GuestError> {
        self.power(Power::Off).await
    }

    /// Restarts a machine whose init is the agent. Returns when this agent is gone.
    ///
    /// # Errors
    /// The agent is not the machine's init.
    pub async fn reboot(&self) -> Result<(), GuestError> {
        self.power(Power::Reboot).await
    }

    async fn power(&self, power: Power) -> Result<(), GuestError> {
        let handle = self.link.open(&Request::Power(power))?;
        match handle.reply().await {
            Err(GuestError::Channel(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(ChannelError::Unexpected("a reply to power").into()),
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("info", &self.info()).finish()
    }
}
