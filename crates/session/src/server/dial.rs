//! A connection as one to a socket inside a machine.

use machinist_guest::{Address, Socket, Stream};
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

use super::commands::fault;
use crate::control::Control;
use crate::hub::Hub;
use crate::protocol::{self, Fault, Reply, Verb};

/// A socket inside a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GuestSocket {
    Port(u16),
    Unix(String),
}

impl GuestSocket {
    /// From what a request says of it: exactly one of the two.
    pub(super) fn of(port: Option<u16>, socket: Option<String>) -> Result<Self, Fault> {
        match (port, socket) {
            (Some(port), None) => Ok(Self::Port(port)),
            (None, Some(path)) => Ok(Self::Unix(path)),
            _ => Err(Fault::usage(
                "either guest_port or guest_socket says where to connect to",
            )),
        }
    }

    /// Connects to it.
    pub(super) async fn open(&self, control: &dyn Control) -> Result<Stream, Fault> {
        let agent = control.agent().await?;
        let opened = match self {
            Self::Port(port) => {
                let host = "localhost".to_owned();
                agent.open(Address::Tcp { host, port: *port }).await
            }
            Self::Unix(path) => agent.open_unix(path).await,
        };
        match opened {
            Ok(stream) => Ok(stream),
            Err(error) => Err(fault(control, &self.text(), error).await),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Port(port) => format!("connecting to port {port}"),
            Self::Unix(path) => format!("connecting to {path}"),
        }
    }
}

pub(super) async fn serve(
    hub: &Hub,
    id: u64,
    verb: Verb,
    reader: BufReader<ReadHalf<Socket>>,
    mut writer: WriteHalf<Socket>,
) {
    let Verb::Dial {
        machine,
        guest_port,
        guest_socket,
    } = verb
    else {
        return;
    };
    let open = async {
        let guest = GuestSocket::of(guest_port, guest_socket)?;
        guest.open(&*hub.machine(&machine)?).await
    };
    let opened = tokio::select! {
        () = hub.over.cancelled() => return,
        opened = open => opened,
    };
    let reply = match &opened {
        Ok(_) => Reply::ok(id, serde_json::Value::Null),
        Err(fault) => Reply::error(id, fault.clone()),
    };
    let Ok(line) = protocol::encode(&reply) else {
        return;
    };
    let (Ok(()), Ok(stream)) = (writer.write_all(&line).await, opened) else {
        return;
    };
    tokio::select! {
        () = hub.over.cancelled() => {}
        () = carry(stream, reader, writer) => {}
    }
}

/// Carries bytes both ways until both have ended, or one breaks.
async fn carry(
    stream: Stream,
    mut reader: BufReader<ReadHalf<Socket>>,
    mut writer: WriteHalf<Socket>,
) {
    let (mut from_guest, mut to_guest) = stream.into_split();
    let out = async {
        let copied = tokio::io::copy(&mut from_guest, &mut writer).await;
        drop(writer.shutdown().await);
        copied
    };
    let inward = async {
        let copied = tokio::io::copy_buf(&mut reader, &mut to_guest).await;
        drop(to_guest.shutdown().await);
        copied
    };
    // Either side may break off; there is nobody to tell but the other.
    drop(tokio::try_join!(out, inward));
}
