//! A conversation with one manager.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use super::SystemdError;
use super::sender::Mender;
use crate::stream::Stream;

pub(super) const MANAGER: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Signals that nobody has looked at; more than these are told as "something was missed".
const QUEUE: usize = 1024;

/// A signal, as far as anyone here cares.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    pub(super) path: String,
    pub(super) member: String,
}

/// Method calls and signals. Both end with it.
pub(super) struct Bus {
    connection: Connection,
    signals: broadcast::Sender<Signal>,
    tasks: [JoinHandle<()>; 2],
}

impl Bus {
    pub(super) async fn new(stream: Stream) -> Result<Self, SystemdError> {
        let (ours, theirs) = StdStream::pair().map_err(broken)?;
        ours.set_nonblocking(true).map_err(broken)?;
        let ours = UnixStream::from_std(ours).map_err(broken)?;
        let pump = tokio::spawn(pump(ours, stream));
        // The agent is root in the guest, whoever we are here.
        let built = Builder::unix_stream(theirs).p2p().user_id(0).build().await;
        let connection = match built {
            Ok(connection) => connection,
            Err(error) => {
                pump.abort();
                return Err(error.into());
            }
        };
        let (signals, _) = broadcast::channel(QUEUE);
        let listen = tokio::spawn(listen(MessageStream::from(&connection), signals.clone()));
        let bus = Self {
            connection,
            signals,
            tasks: [pump, listen],
        };
        bus.call(MANAGER, MANAGER_INTERFACE, "Subscribe", &())
            .await?;
        Ok(bus)
    }

    pub(super) fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    /// Waits until the conversation has broken off.
    pub(super) async fn closed(&self) -> SystemdError {
        self.connection.closed().await;
        broken(io::ErrorKind::ConnectionReset.into())
    }

    pub(super) async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, zbus::Error>
    where
        B: Serialize + zbus::DynamicType,
    {
        self.connection
            .call_method(None::<&str>, path, Some(interface), method, body)
            .await
    }

    /// A property of the manager.
    pub(super) async fn manager_property(&self, name: &str) -> Result<String, zbus::Error> {
        let value = self.property(MANAGER, MANAGER_INTERFACE, name).await?;
        Ok(text(&value).unwrap_or_default())
    }

    /// A property of an object.
    pub(super) async fn property(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<OwnedVariant, zbus::Error> {
        let body = (interface, name);
        let reply = self.call(path, PROPERTIES, "Get", &body).await?;
        reply.body().deserialize()
    }

    /// The properties that every unit has.
    pub(super) async fn unit_properties(
        &self,
        path: &str,
    ) -> Result<HashMap<String, OwnedVariant>, zbus::Error> {
        let reply = self
            .call(path, PROPERTIES, "GetAll", &(UNIT_INTERFACE,))
            .await?;
        reply.body().deserialize()
    }

    /// Where the unit of this name is, loaded if it was not.
    pub(super) async fn load_unit(&self, name: &str) -> Result<String, zbus::Error> {
        let reply = self
            .call(MANAGER, MANAGER_INTERFACE, "LoadUnit", &(name,))
            .await?;
        let path: OwnedObjectPath = reply.body().deserialize()?;
        Ok(path.to_string())
    }
}

fn broken(error: io::Error) -> SystemdError {
    SystemdError::Bus(zbus::Error::InputOutput(Arc::new(error)))
}

/// A variant that is a string.
pub(super) fn text(value: &OwnedVariant) -> Option<String> {
    value.downcast_ref::<&str>().ok().map(str::to_owned)
}

impl Bus {
    /// Ends the conversation. The agent hears of that before it hears of anything that is asked of it
    /// from now on.
    pub(super) async fn hang_up(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // That it was told to end is nothing to tell.
            drop(task.await);
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Carries bytes between the guest's socket and ours, until either ends.
async fn pump(ours: UnixStream, guest: Stream) {
    let (mut from_us, mut to_us) = ours.into_split();
    let (mut from_guest, mut to_guest) = guest.into_split();
    let receive = async {
        let mut mender = Mender::default();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_guest.read(&mut buffer).await {
            let Ok(bytes) = mender.push(&buffer[..count]) else {
                return;
            };
            if to_us.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    // Whichever ends takes the other with it; there is nobody to tell.
    tokio::select! {
        () = receive => {}
        _ = copy(&mut from_us, &mut to_guest) => {}
    }
}

/// Reads everything that comes: a queue of the connection that nobody empties would hold it up.
async fn listen(mut messages: MessageStream, signals: broadcast::Sender<Signal>) {
    while let Some(message) = messages.next().await {
        let Ok(message) = message else { return };
        if message.message_type() != zbus::message::Type::Signal {
            continue;
        }
        let header = message.header();
        let (Some(path), Some(member)) = (header.path(), header.member()) else {
            continue;
        };
        // Without listeners nobody has to know.
        drop(signals.send(Signal {
            path: path.to_string(),
            member: member.to_string(),
        }));
    }
}
