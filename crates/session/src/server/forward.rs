//! Sockets of this host that lead into machines, through their agents.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::dial::GuestSocket;
use crate::control::Control;
use crate::dial;
use crate::hub::Hub;
use crate::protocol::{Fault, Forwarded, Verb};
use crate::quote::quote;

/// Before the next try, where a connection could not be taken.
const AGAIN: Duration = Duration::from_millis(50);
/// Where SSH servers listen.
const SSH: u16 = 22;

/// Listens, and goes on listening after the answer.
pub(super) async fn perform(hub: &Arc<Hub>, verb: Verb) -> Result<Forwarded, Fault> {
    let Verb::Forward {
        machine,
        host_port,
        host_socket,
        guest_port,
        guest_socket,
    } = verb
    else {
        return Err(Fault::usage("this cannot be asked here"));
    };
    let guest = GuestSocket::of(guest_port, guest_socket)?;
    let control = hub.machine(&machine)?;
    let address = match host_socket {
        None => {
            let failed = |error| {
                Fault::usage(format!(
                    "cannot listen on port {host_port} of this host: {error}"
                ))
            };
            let listener = TcpListener::bind(("127.0.0.1", host_port)).await;
            let listener = listener.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let accept = async move || Ok(listener.accept().await?.0);
            hub.detach(serve(accept, control, guest));
            address.to_string()
        }
        Some(path) => {
            let socket = Socket::listen(&path)?;
            let accept = async move || Ok(socket.listener.accept().await?.0);
            hub.detach(serve(accept, control, guest));
            path.display().to_string()
        }
    };
    Ok(Forwarded { address })
}

/// A socket in the file system, which is removed when nobody listens there any more.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where it is gone already, somebody else has seen to it.
        drop(std::fs::remove_file(&self.path));
    }
}

impl Socket {
    fn listen(path: &Path) -> Result<Self, Fault> {
        if !path.is_absolute() {
            let path = path.display();
            return Err(Fault::usage(format!(
                "{path}: paths of the host must be absolute"
            )));
        }
        let listener = UnixListener::bind(path).map_err(|error| {
            Fault::usage(format!("cannot listen at {}: {error}", path.display()))
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accept: impl AsyncFn() -> std::io::Result<S>,
    control: Arc<dyn Control>,
    guest: GuestSocket,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept() => {
                // An error is of that one connection, or a lack of descriptors that may pass.
                let Ok(stream) = accepted else {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                connections.spawn(carry(stream, Arc::clone(&control), guest.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection. A machine that does not take it closes it, as a refused one is.
async fn carry(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    control: Arc<dyn Control>,
    guest: GuestSocket,
) {
    // A connection from outside is no reason to start a machine.
    if !matches!(control.state(), "up" | "ready") {
        return;
    }
    let Ok(mut inside) = guest.open(&*control).await else {
        return;
    };
    // Either side may break off; there is nobody to tell but the other.
    drop(tokio::io::copy_bidirectional(&mut stream, &mut inside).await);
}

/// The command line that logs in to a machine.
pub(super) fn ssh(hub: &Hub, machine: &str) -> Result<String, Fault> {
    hub.machine(machine)?;
    let proxy = dial::command_line(&hub.facts.exe, &hub.facts.directory, machine, SSH);
    Ok(format!(
        "ssh -o User=root -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o ProxyCommand={} {machine}",
        quote(&proxy)
    ))
}
