//! A builder's service: it listens on the builder's socket, starts the machine for whoever connects,
//! joins them to Nix's daemon in it, and stops the machine when nobody has used it for long enough.
//!
//! ```text
//! Nix's daemon (host)                      systemd, launchd, or nobody
//!   machinist connect ──▶ socket ──▶ service (this) ──▶ session, its guard
//!                                      keeper: one task, one machine
//!                                      join ══ agent's stream ══▶ nix-daemon (machine)
//! ```

mod join;
mod keeper;
mod log;
mod machine;
mod occupancy;
mod predecessor;
mod seen;
mod settle;
mod ssh;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machinist_guest::{GuestError, Stream};
use machinist_sys::lock::Locked;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use log::Listener;

use crate::config::Config;
use crate::host_store::HostStore;
use crate::path_error::{At, PathError};
use crate::protocol::{self, Asked, Said};
use crate::state::{State, StateError};
use keeper::{Keeper, Seat};
pub(crate) use log::Log;
use machine::Starter;
pub(crate) use machine::chain;
use ssh::Door;

/// Between two signs of life to somebody who waits.
const STILL: Duration = Duration::from_secs(5);
/// How long Nix's daemon may take to listen where its socket is.
const LISTENS: Duration = Duration::from_secs(10);
/// How long a client may take to say what it wants.
const ASK: Duration = Duration::from_secs(30);

/// A service could not be run.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Another one runs.
    #[error("the builder {name:?} has a service already (process {pid})")]
    Runs {
        /// The builder.
        name: String,
        /// The other's process id.
        pid: String,
    },
    /// The builder's directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something in it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The socket.
    #[error("cannot listen for connections")]
    Listen(#[source] io::Error),
}

/// A builder's service, listening. Must be made, and run, inside a tokio runtime.
pub struct Service {
    listener: UnixListener,
    /// To be removed at the end, where we have made it.
    own_socket: Option<PathBuf>,
    keeper: Keeper,
    door: Door,
    config: Arc<Config>,
    log: Log,
    _lock: Locked,
}

impl Service {
    /// Takes the builder's lock and listens: on `inherited`, where an init system has made the
    /// socket, else on the builder's own. `exe` is our program; `listener` gets every line of the
    /// log.
    ///
    /// # Errors
    /// Another service has the lock, or the socket cannot be had.
    pub fn listen(
        state: &State,
        exe: &Path,
        inherited: Option<OwnedFd>,
        listener: Listener,
    ) -> Result<Self, ServiceError> {
        let config = Arc::new(state.config()?);
        let Some(lock) = state.lock()? else {
            return Err(ServiceError::Runs {
                name: state.name(),
                pid: state.pid().unwrap_or_default(),
            });
        };
        let log = Log::open(&state.log(), listener)?;
        let own_socket = inherited.is_none().then(|| state.socket());
        let listener = match inherited {
            Some(socket) => from_init(socket).map_err(ServiceError::Listen)?,
            None => bind(&state.socket())?,
        };
        let keeper = Keeper::new(Starter {
            config: Arc::clone(&config),
            state: state.clone(),
            exe: exe.to_owned(),
            log: log.clone(),
            note: watch::Sender::new(String::new()),
        });
        log.say(&format!("listening (process {})", std::process::id()));
        let door = Door::new(keeper.clone(), state.clone(), log.clone());
        Ok(Self {
            listener,
            own_socket,
            keeper,
            door,
            config,
            log,
            _lock: lock,
        })
    }

    /// Serves until `end` ends; then the machine is stopped, whoever uses it.
    ///
    /// # Errors
    /// The socket has failed.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let mut connections = JoinSet::new();
        let mut end = std::pin::pin!(end);
        if let Err(error) = self.door.open().await {
            // Nix's builds come the other way.
            self.log.say(&format!("warning: no SSH: {error}"));
        }
        let outcome = loop {
            tokio::select! {
                () = &mut end => break Ok(()),
                accepted = self.listener.accept() => match accepted {
                    Ok((client, _)) => {
                        let connection = Connection {
                            keeper: self.keeper.clone(),
                            door: self.door.clone(),
                            config: Arc::clone(&self.config),
                            log: self.log.clone(),
                        };
                        drop(connections.spawn(connection.serve(client)));
                    }
                    // A client that was gone before we came to it, or too many files: the next.
                    Err(error) if is_passing(&error) => {
                        self.log.say(&format!("warning: {error}"));
                        passing().await;
                    }
                    Err(error) => break Err(ServiceError::Listen(error)),
                },
                Some(_) = connections.join_next() => {}
            }
        };
        if let Some(socket) = &self.own_socket {
            // Who comes now finds nobody, and starts another service.
            drop(std::fs::remove_file(socket));
        }
        self.log.say("the service ends");
        self.door.close();
        self.keeper.end().await;
        connections.shutdown().await;
        outcome
    }
}

/// Before the next connection is asked for after one that failed: where files are scarce, it would fail again
/// at once, and nothing tells when that is over.
pub(crate) async fn passing() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

pub(crate) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::CONNABORTED | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// A socket of an init system's.
pub(crate) fn from_init(socket: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whether what `file` is open on is a socket that listens: then an init system has made it.
#[must_use]
pub fn is_listening(file: impl AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(file).unwrap_or(false)
}

pub(crate) fn bind(path: &Path) -> Result<UnixListener, PathError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // We hold the lock: whoever made it is dead.
        removed => removed.at("remove", path)?,
    }
    let listener = UnixListener::bind(path).at("listen at", path)?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).at("change", path)?;
    Ok(listener)
}

/// One client.
struct Connection {
    keeper: Keeper,
    door: Door,
    config: Arc<Config>,
    log: Log,
}

impl Connection {
    async fn serve(self, client: UnixStream) {
        let mut client = BufReader::new(client);
        let asked = match tokio::time::timeout(ASK, read(&mut client)).await {
            Ok(Ok(asked)) => asked,
            // Nothing is known of what it wants, not even whether it reads.
            Ok(Err(_)) | Err(_) => return,
        };
        let mut client = client.into_inner();
        let said = match asked {
            Asked::Connect => {
                if let Some((seat, guest)) = self.reach(&mut client).await
                    && say(&mut client, &Said::Joined).await.is_ok()
                {
                    let ear = seat.host_store.as_ref().map(HostStore::ear);
                    join::join(client, guest, ear, self.keeper.carried()).await;
                    drop(seat);
                }
                return;
            }
            Asked::Hold => return self.hold(client).await,
            Asked::Status => match self.keeper.status().await {
                Some(status) => Said::Status(status),
                None => Said::Failed {
                    text: "its service ends".into(),
                },
            },
            Asked::Ssh => match self.door.open().await {
                Ok(()) => Said::Open,
                Err(text) => Said::Failed { text },
            },
            Asked::Stop { force } => {
                match self.patiently(&mut client, self.keeper.stop(force)).await {
                    Some(Ok(())) => Said::Stopped,
                    Some(Err(text)) => Said::Failed { text },
                    None => return,
                }
            }
        };
        drop(say(&mut client, &said).await);
    }

    /// Keeps the machine until the client goes.
    async fn hold(&self, mut client: UnixStream) {
        let Some(seat) = self.seat(&mut client).await else {
            return;
        };
        let held = Said::Held {
            session: seat.session.clone(),
            ran: seat.ran,
        };
        if say(&mut client, &held).await.is_ok() {
            let mut nothing = [0];
            drop(client.read(&mut nothing).await);
        }
        drop(seat);
    }

    /// A seat, and a connection to Nix's daemon.
    async fn reach(&self, client: &mut UnixStream) -> Option<(Seat, Stream)> {
        let mut failure = String::new();
        // A machine can die between the two; then there is another.
        for _ in 0..2 {
            let seat = self.seat(client).await?;
            if let Some(host_store) = &seat.host_store {
                host_store.check().await;
            }
            match daemon(&seat, self.config.daemon()).await {
                Ok(guest) => return Some((seat, guest)),
                Err(error) => failure = chain(error),
            }
            if seat.agent.reason().is_none() {
                break;
            }
        }
        let text = format!(
            "cannot reach the Nix daemon of builder {}: {failure}",
            self.config.name
        );
        self.log.say(&text);
        drop(say(client, &Said::Failed { text }).await);
        None
    }

    /// A seat. The client is told what is waited for; `None` where it has gone, or was told why there
    /// is no seat.
    async fn seat(&self, client: &mut UnixStream) -> Option<Seat> {
        let mut notes = self.keeper.notes();
        let mut waiting = self.keeper.arrive();
        let mut told = false;
        loop {
            let seat = tokio::select! {
                biased;
                seat = waiting.seat() => seat,
                _ = tokio::time::sleep(STILL) => {
                    say(client, &Said::Still).await.ok()?;
                    continue;
                }
                changed = notes.changed() => {
                    changed.ok()?;
                    let doing = notes.borrow_and_update().clone();
                    if doing.is_empty() {
                        continue;
                    }
                    let text = if told {
                        format!("builder {}: {doing}", self.config.name)
                    } else {
                        format!("starting builder {}", self.config.name)
                    };
                    told = true;
                    say(client, &Said::Note { text }).await.ok()?;
                    continue;
                }
            };
            return match seat {
                Ok(seat) => Some(seat),
                Err(reason) => {
                    let name = &self.config.name;
                    let log = self.log_hint();
                    let text = format!("builder {name} did not boot: {reason}; see {log}");
                    drop(say(client, &Said::Failed { text }).await);
                    None
                }
            };
        }
    }

    fn log_hint(&self) -> String {
        format!("`machinist builder logs {}`", self.config.name)
    }

    /// Does something long, with signs of life. `None` where the client has gone.
    async fn patiently<T>(
        &self,
        client: &mut UnixStream,
        doing: impl Future<Output = T>,
    ) -> Option<T> {
        let mut doing = std::pin::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return Some(done),
                () = tokio::time::sleep(STILL) => say(client, &Said::Still).await.ok()?,
            }
        }
    }
}

/// A connection to Nix's daemon.
async fn daemon(seat: &Seat, socket: &str) -> Result<Stream, GuestError> {
    let opened = seat.agent.open_unix(socket).await;
    if opened.is_ok() || seat.agent.reason().is_some() {
        return opened;
    }
    // Its socket is made before somebody listens at it.
    let deadline = tokio::time::Instant::now() + LISTENS;
    let waited = seat.agent.wait_socket(Path::new(socket), false, deadline);
    waited.await?;
    seat.agent.open_unix(socket).await
}

async fn read(client: &mut BufReader<UnixStream>) -> io::Result<Asked> {
    let mut line = Vec::new();
    let most = protocol::LONGEST_LINE as u64;
    client.take(most).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

async fn say(client: &mut UnixStream, said: &Said) -> io::Result<()> {
    client.write_all(&protocol::line(said)).await
}
