//! The door for SSH: a port of 127.0.0.1 whose connections lead to an sshd in the machine, one for each,
//! which is started for the first.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::join;
use super::keeper::Keeper;
use super::log::Log;
use super::machine::chain;
use super::settle;
use crate::ssh::Keys;
use crate::state::State;

/// Where the machine's sshd listens.
const SSHD: &str = "/run/machinist-ssh";

/// How long that may take to begin, in an emulated machine on a busy host.
const LISTENS: Duration = Duration::from_secs(120);

/// The door. Clones are the same one.
#[derive(Clone)]
pub(super) struct Door(Arc<Inner>);

struct Inner {
    keeper: Keeper,
    state: State,
    log: Log,
    /// Held by who opens it: two at once would find the port in use.
    opening: tokio::sync::Mutex<()>,
    /// Where it is open.
    open: Mutex<Option<(u16, AbortHandle)>>,
}

impl Door {
    pub(super) fn new(keeper: Keeper, state: State, log: Log) -> Self {
        Self(Arc::new(Inner {
            keeper,
            state,
            log,
            opening: tokio::sync::Mutex::default(),
            open: Mutex::default(),
        }))
    }

    /// Opens it where the builder's keys say, if there are any. The error is for people.
    pub(super) async fn open(&self) -> Result<(), String> {
        let Some(keys) = Keys::of(&self.0.state).map_err(chain)? else {
            return Ok(());
        };
        let port = keys.port();
        let _opening = self.0.opening.lock().await;
        if self.lock().as_ref().is_some_and(|(at, _)| *at == port) {
            return Ok(());
        }
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener =
            listening.map_err(|error| format!("cannot listen at 127.0.0.1:{port}: {error}"))?;
        self.0.log.say(&format!("SSH at 127.0.0.1:{port}"));
        let task = tokio::spawn(accept(Arc::clone(&self.0), keys, listener));
        let former = self.lock().replace((port, task.abort_handle()));
        close(former);
        Ok(())
    }

    /// Closes it; connections end.
    pub(super) fn close(&self) {
        close(self.lock().take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u16, AbortHandle)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(open: Option<(u16, AbortHandle)>) {
    if let Some((_, task)) = open {
        task.abort();
    }
}

async fn accept(door: Arc<Inner>, keys: Keys, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    drop(connections.spawn(serve(Arc::clone(&door), keys.clone(), client)));
                }
                Err(error) if super::is_passing(&error) => super::passing().await,
                Err(error) => {
                    door.log.say(&format!("warning: SSH ends: {error}"));
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(door: Arc<Inner>, keys: Keys, client: TcpStream) {
    // What is typed is to be seen at once.
    drop(client.set_nodelay(true));
    if let Err(error) = lead(&door, &keys, client).await {
        door.log
            .say(&format!("warning: a connection by SSH: {error}"));
    }
}

async fn lead(door: &Inner, keys: &Keys, client: TcpStream) -> Result<(), String> {
    let seat = door.keeper.arrive().seat().await?;
    settle::give_keys(&seat.agent, keys).await.map_err(chain)?;
    // Of a machine that has just started, systemd may not be there yet.
    let deadline = Instant::now() + LISTENS;
    let listens = seat.agent.wait_file(Path::new(SSHD), deadline).await;
    listens.map_err(chain)?;
    let guest = seat.agent.open_unix(SSHD).await.map_err(chain)?;
    // What comes by SSH is its own business: nothing in it can be overheard.
    join::join(client, guest, None, door.keeper.carried()).await;
    drop(seat);
    Ok(())
}
