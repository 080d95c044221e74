//! Where the parts of an answer go.

use tokio::sync::mpsc;

use crate::protocol::{self, Fault, Part, Reply};

/// Lines on their way to a client. Bounded: a client that does not read holds up what fills it.
pub(super) type Lines = mpsc::Sender<Vec<u8>>;

/// The way back to the client, for one request.
#[derive(Clone)]
pub(super) struct Parts {
    id: u64,
    lines: Lines,
}

impl Parts {
    pub(super) fn new(id: u64, lines: Lines) -> Self {
        Self { id, lines }
    }

    /// Sends a part, when the client has room for it.
    pub(super) async fn send(&self, part: Part) -> Result<(), Fault> {
        send(&self.lines, &Reply::part(self.id, part)).await
    }
}

/// Sends a line, when the client has room for it. A client that has gone wants nothing any more.
pub(super) async fn send(lines: &Lines, reply: &Reply) -> Result<(), Fault> {
    let line = protocol::encode(reply).map_err(Fault::machinery)?;
    lines.send(line).await.map_err(|_| Fault::cancelled())
}
