//! One connection: reads requests, does them side by side, writes what comes back.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machinist_guest::Socket;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::parts::{self, Lines, Parts};
use super::{dial, shell, verbs};
use crate::Cancel;
use crate::hub::Hub;
use crate::protocol::{self, Data, Fault, Reply, Request, Verb};

/// Lines that may wait for the client to read. One is at most as long as what a command prints at
/// once, so this bounds memory, and a client that does not read slows down only itself.
const WAITING_LINES: usize = 64;

/// How long a connection that ends waits for its client to read the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What a later request can tell an open one.
#[derive(Debug)]
pub(super) enum Word {
    /// Input for the command.
    Input(Vec<u8>),
    /// The end of its input.
    CloseInput,
    /// A signal for its process group.
    Signal(i32),
    /// The client has seen what it waited for.
    Done,
}

/// A request that has no end yet.
struct Open {
    cancel: Cancel,
    words: mpsc::UnboundedSender<Word>,
}

type Table = Arc<Mutex<HashMap<u64, Open>>>;

struct Connection {
    hub: Arc<Hub>,
    lines: Lines,
    open: Table,
    work: JoinSet<()>,
}

/// What to do after a line.
enum Next {
    Go,
    /// The connection becomes the stream of a command.
    Shell(u64, Box<Verb>),
}

pub(super) async fn serve(stream: UnixStream, hub: Arc<Hub>) {
    // What cannot be watched has nobody to be told.
    let Ok(stream) = stream.into_std().and_then(Socket::new) else {
        return;
    };
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let (lines, waiting) = mpsc::channel(WAITING_LINES);
    let writing = tokio::spawn(write_lines(writer, waiting));
    if let Ok(hello) = protocol::encode(&hub.hello()) {
        // A client that has gone already is noticed by reading.
        drop(lines.send(hello).await);
    }
    let mut connection = Connection {
        hub: Arc::clone(&hub),
        lines,
        open: Table::default(),
        work: JoinSet::new(),
    };
    let shell = tokio::select! {
        () = hub.over.cancelled() => None,
        shell = connection.read_requests(&mut reader) => shell,
    };
    let abort = writing.abort_handle();
    let ended = tokio::time::timeout(LAST_LINES, async {
        connection.end().await;
        writing.await
    });
    let Ok(Ok(writer)) = ended.await else {
        abort.abort();
        return;
    };
    if let Some((id, verb)) = shell {
        match verb {
            Verb::Dial { .. } => dial::serve(&hub, id, verb, reader, writer).await,
            verb => shell::serve(&hub, id, verb, reader, writer).await,
        }
    }
}

/// Writes lines until nobody can send more, and gives the writer back.
async fn write_lines(
    mut writer: WriteHalf<Socket>,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> WriteHalf<Socket> {
    while let Some(line) = waiting.recv().await {
        if writer.write_all(&line).await.is_err() {
            // Closed: senders see that, and end what they do.
            break;
        }
    }
    writer
}

impl Connection {
    /// Reads requests until the client ends, or wants a stream.
    async fn read_requests(
        &mut self,
        reader: &mut BufReader<ReadHalf<Socket>>,
    ) -> Option<(u64, Verb)> {
        loop {
            let line = read_line(reader).await.ok()??;
            match self.take(&line).await {
                Next::Go => {}
                Next::Shell(id, verb) => return Some((id, *verb)),
            }
            while self.work.try_join_next().is_some() {}
        }
    }

    async fn take(&mut self, line: &[u8]) -> Next {
        let Request { id, verb } = match protocol::decode(line) {
            Ok(request) => request,
            Err(error) => {
                let fault = Fault::usage(format!("this is no request: {error}"));
                self.answer(&Reply::error(id_of(line), fault)).await;
                return Next::Go;
            }
        };
        if id == 0 || self.table().contains_key(&id) {
            let fault = Fault::usage(format!("a request with the id {id} is open, or it is 0"));
            self.answer(&Reply::error(id, fault)).await;
            return Next::Go;
        }
        match verb {
            Verb::Shell { .. } | Verb::Dial { .. } if self.table().is_empty() => {
                return Next::Shell(id, Box::new(verb));
            }
            Verb::Shell { .. } | Verb::Dial { .. } => {
                let fault = Fault::usage("a stream needs a connection without open requests");
                self.answer(&Reply::error(id, fault)).await;
            }
            Verb::Cancel { of } => {
                let done = self.with_open(of, |open| open.cancel.cancel());
                self.answer(&reply(id, done)).await;
            }
            Verb::Send {
                of,
                data: Data(data),
            } => self.tell(id, of, Word::Input(data)).await,
            Verb::CloseInput { of } => self.tell(id, of, Word::CloseInput).await,
            Verb::Signal { of, signal } => self.tell(id, of, Word::Signal(signal)).await,
            Verb::Done { of } => self.tell(id, of, Word::Done).await,
            verb => self.begin(id, verb),
        }
        Next::Go
    }

    fn begin(&mut self, id: u64, verb: Verb) {
        let cancel = Cancel::new();
        let (sender, words) = mpsc::unbounded_channel();
        let open = Open {
            cancel: cancel.clone(),
            words: sender,
        };
        self.table().insert(id, open);
        let hub = Arc::clone(&self.hub);
        let lines = self.lines.clone();
        let table = Arc::clone(&self.open);
        self.work.spawn(async move {
            let parts = Parts::new(id, lines.clone());
            let done = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Fault::cancelled()),
                done = verbs::perform(&hub, verb, &parts, words) => done,
            };
            table
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
            // A client that has gone wants no answer.
            drop(parts::send(&lines, &reply(id, done)).await);
        });
    }

    async fn tell(&mut self, id: u64, of: u64, word: Word) {
        let done = self.with_open(of, |open| {
            // It ends just now: as good as a moment later.
            drop(open.words.send(word));
        });
        self.answer(&reply(id, done)).await;
    }

    fn with_open(&self, of: u64, act: impl FnOnce(&Open)) -> Result<Value, Fault> {
        let table = self.table();
        let open = table
            .get(&of)
            .ok_or_else(|| Fault::usage(format!("no request with the id {of} is open")))?;
        act(open);
        Ok(Value::Null)
    }

    async fn answer(&self, reply: &Reply) {
        // A client that has gone wants no answer.
        drop(parts::send(&self.lines, reply).await);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is open, and waits until it has.
    async fn end(mut self) {
        for open in self.table().values() {
            open.cancel.cancel();
        }
        while self.work.join_next().await.is_some() {}
    }
}

fn reply(id: u64, done: Result<Value, Fault>) -> Reply {
    match done {
        Ok(value) => Reply::ok(id, value),
        Err(fault) => Reply::error(id, fault),
    }
}

/// The id of a line that is no request, if it has one, so that the client can tell which it was.
fn id_of(line: &[u8]) -> u64 {
    let value: Option<Value> = serde_json::from_slice(line).ok();
    value
        .and_then(|value| value.get("id")?.as_u64())
        .unwrap_or(0)
}

/// A line without its end; `None` at the end of the connection.
async fn read_line(reader: &mut BufReader<ReadHalf<Socket>>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = protocol::LONGEST_LINE as u64;
    reader.take(most).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        None => Ok(None),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
