//! The ways into a running QEMU: its control socket, the agent's port, and the guest's root shell.

use std::future::pending;
use std::io;
use std::pin::Pin;

use machinist_guest::shell::{self, Bring, Brought, Order, Shared};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::argv::{self, AGENT_PORT};
use super::{ScriptVm, begin};
use crate::qemu::port::AgentPort;
use crate::qemu::qmp::{Event, Qmp};

/// Where files are, in guests that follow NixOS' contract.
const SHARED: &str = "/tmp/shared";

/// What leads into a running QEMU.
pub(super) struct Doors {
    pub(super) qmp: Qmp,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    /// QEMU itself, where it is seen from here.
    pub(super) pid: Option<u32>,
    pub(super) port: AgentPort,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) brought: mpsc::UnboundedReceiver<Brought>,
}

/// Takes QEMU's connections, and connects to it.
pub(super) async fn open(
    this: &ScriptVm,
    monitor: UnixListener,
    shell: UnixListener,
) -> io::Result<Doors> {
    let ((monitor, _), (shell, _)) = tokio::try_join!(monitor.accept(), shell.accept())?;
    // We use its control socket. The monitor is for who counts on its prompt; it is read, so that
    // QEMU never waits for us.
    drop(tokio::spawn(async move {
        let mut monitor = monitor;
        drop(tokio::io::copy(&mut monitor, &mut tokio::io::sink()).await);
    }));
    let dir = &this.spec.state_dir;
    let (qmp, events, pid) = begin::control(dir).await?;
    let port = begin::there(|| AgentPort::connect(dir, argv::AGENT)).await?;
    let (orders, brought) = shell::attend(
        shell,
        Bring {
            agent: machinist_guest::AGENT,
            port: AGENT_PORT.to_owned(),
            shared: Some(Shared {
                host: this.spec.shared_dir.clone(),
                guest: SHARED.into(),
            }),
        },
    );
    Ok(Doors {
        qmp,
        events,
        pid,
        port,
        orders,
        brought,
    })
}

/// When QEMU is there; never, where nobody waits for it any more.
pub(super) async fn opened<T>(opening: Option<&mut Pin<Box<T>>>) -> io::Result<Doors>
where
    T: Future<Output = io::Result<Doors>>,
{
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

/// What comes through the doors.
pub(super) enum Heard {
    Event(Event),
    Brought(Brought),
}

pub(super) async fn heard_of(doors: Option<&mut Doors>) -> Heard {
    let Some(doors) = doors else {
        return pending().await;
    };
    tokio::select! {
        Some(event) = doors.events.recv() => Heard::Event(event),
        Some(brought) = doors.brought.recv() => Heard::Brought(brought),
        // QEMU ends, which is seen elsewhere.
        else => pending().await,
    }
}
