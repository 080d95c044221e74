//! The service of external builds: it listens where builds' users may connect, and builds for each
//! connection in the builder's machine.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::job::Job;
use crate::connect::Launch;
use crate::path_error::{At, PathError};
use crate::service::{bind, from_init, is_passing, passing};
use crate::state::State;

/// Where services of external builds listen. Builds' users can go there, unlike to the builder's own
/// directory.
#[cfg(not(target_os = "macos"))]
const SOCKETS: &str = "/run/machinist-external";
#[cfg(target_os = "macos")]
const SOCKETS: &str = "/var/run/machinist-external";

/// Where the service of the builder `name` listens.
#[must_use]
pub fn socket(name: &str) -> PathBuf {
    Path::new(SOCKETS).join(name)
}

/// Who may connect, beside the service's own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Own,
    /// Everybody of the group with this number.
    Group(u32),
}

/// A service cannot be run.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// Its socket.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Connections.
    #[error("cannot listen for connections")]
    Listen(#[source] io::Error),
    /// Another one listens.
    #[error("a service listens at {} already", .0.display())]
    Runs(PathBuf),
}

/// A service that listens. Must be made, and run, inside a tokio runtime.
#[derive(Debug)]
pub struct Broker {
    listener: UnixListener,
    /// To be removed at the end, where we have made it.
    own_socket: Option<PathBuf>,
    state: State,
    launch: Launch,
    search: OsString,
}

impl Broker {
    /// Listens for builds for the builder of `state`: on `inherited`, where an init system has made
    /// the socket, else at `socket`. `launch` is how the builder's own service is run, and `search`
    /// is where Nix's programs are looked for.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub fn listen(
        state: State,
        launch: Launch,
        search: OsString,
        (socket, access): (&Path, Access),
        inherited: Option<OwnedFd>,
    ) -> Result<Self, BrokerError> {
        let own_socket = inherited.is_none().then(|| socket.to_owned());
        let listener = match inherited {
            Some(socket) => from_init(socket).map_err(BrokerError::Listen)?,
            None => make(socket, access)?,
        };
        Ok(Self {
            listener,
            own_socket,
            state,
            launch,
            search,
        })
    }

    /// Serves until `end` ends; then all builds are stopped.
    ///
    /// # Errors
    /// The socket has failed.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), BrokerError> {
        let mut builds = JoinSet::new();
        let mut end = std::pin::pin!(end);
        let run = run_name();
        let mut number: u64 = 0;
        let outcome = loop {
            tokio::select! {
                () = &mut end => break Ok(()),
                accepted = self.listener.accept() => match accepted {
                    Ok((client, _)) => {
                        number += 1;
                        let job = Job {
                            state: self.state.clone(),
                            launch: self.launch.clone(),
                            search: self.search.clone(),
                            directory: format!("{run}-{number}"),
                        };
                        drop(builds.spawn(job.serve(client)));
                    }
                    Err(error) if is_passing(&error) => passing().await,
                    Err(error) => break Err(BrokerError::Listen(error)),
                },
                Some(_) = builds.join_next() => {}
            }
        };
        if let Some(socket) = &self.own_socket {
            drop(std::fs::remove_file(socket));
        }
        builds.shutdown().await;
        outcome
    }
}

/// Of all services that the machine has seen, this one's: process, and when it began.
fn run_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    format!("{}-{since}", std::process::id())
}

fn make(socket: &Path, access: Access) -> Result<UnixListener, BrokerError> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(BrokerError::Runs(socket.to_owned()));
    }
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).at("make", directory)?;
    }
    let listener = bind(socket)?;
    if let Access::Group(group) = access {
        chown(socket, None, Some(group)).at("change", socket)?;
        let shared = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(socket, shared).at("change", socket)?;
    }
    Ok(listener)
}
