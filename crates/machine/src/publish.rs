//! Ports of the host that lead into a machine, through its agent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::agent::{self, Agent};
use crate::spec::Publish;

/// Before the next try, where a connection could not be taken.
const AGAIN: Duration = Duration::from_millis(50);

/// Listeners of one machine. Dropping it closes them and all connections.
#[derive(Debug, Default)]
pub(crate) struct Published {
    addresses: Vec<SocketAddr>,
    /// Ends with the set, when that is dropped.
    _tasks: JoinSet<()>,
}

/// A port of the host that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub(crate) struct PublishError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Published {
    /// Listens. Connections reach the agent that `agents` holds when they come.
    pub(crate) async fn listen(
        ports: &[Publish],
        agents: &watch::Sender<Option<Agent>>,
    ) -> Result<Self, PublishError> {
        let mut addresses = Vec::new();
        let mut tasks = JoinSet::new();
        for port in ports {
            let failed = |source| PublishError {
                address: port.host,
                source,
            };
            let listener = TcpListener::bind(port.host).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            tasks.spawn(serve(listener, port.guest, Arc::new(agents.subscribe())));
        }
        Ok(Self {
            addresses,
            _tasks: tasks,
        })
    }

    /// Where it listens, in the order of the specification.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn serve(listener: TcpListener, guest: u16, agents: Arc<watch::Receiver<Option<Agent>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error is of that one connection, or a lack of descriptors that may pass.
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                let agent = agents.borrow().clone();
                connections.spawn(forward(stream, agent, guest));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection. A machine that does not take it closes it, as a refused one is.
async fn forward(mut stream: TcpStream, agent: Option<Agent>, guest: u16) {
    let Some(agent) = agent else { return };
    let Ok(mut inside) = agent::open_port(&agent, guest).await else {
        return;
    };
    // Either side may break off; there is nobody to tell but the other.
    drop(tokio::io::copy_bidirectional(&mut stream, &mut inside).await);
}
