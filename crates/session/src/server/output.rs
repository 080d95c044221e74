//! What commands print: kept for the answer, and told line by line.

use std::sync::{Arc, Mutex, PoisonError};

use machinist_events::{Stream, What, printed_line};
use machinist_machine::Console;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::parts::Parts;
use crate::log::Log;
use crate::protocol::{Data, Part};

/// The most that one stream of a command puts into the event log, in bytes. An answer has all; the
/// log is for people.
const TOLD: usize = 256 * 1024;
/// Where a line without an end is cut, in bytes.
const LONGEST: usize = 16 * 1024;

/// The most that a command may print into one answer, in bytes.
pub(super) const MOST_KEPT: usize = 32 * 1024 * 1024;
/// As much of its standard error. An answer with both fits into a line of the protocol.
const MOST_ERRORS: usize = 8 * 1024 * 1024;

/// Tells one stream of a command, line by line.
pub(super) struct Teller {
    log: Arc<Log>,
    machine: String,
    id: u64,
    stream: Stream,
    console: Option<Console>,
    partial: Vec<u8>,
    told: usize,
    untold: usize,
}

impl Teller {
    pub(super) fn new(log: &Arc<Log>, machine: &str, id: u64, stream: Stream) -> Self {
        Self {
            log: Arc::clone(log),
            machine: machine.to_owned(),
            id,
            stream,
            console: None,
            partial: Vec::new(),
            told: 0,
            untold: 0,
        }
    }

    /// The same, and what it tells is found on this console, too.
    pub(super) fn on(mut self, console: Option<Console>) -> Self {
        self.console = console;
        self
    }

    /// Takes what was printed.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.told >= TOLD {
            self.untold += bytes.len();
            return;
        }
        self.told += bytes.len();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST {
                self.tell_line();
            }
        }
    }

    /// Tells what has no end yet, and that something was left out.
    pub(super) fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.tell_line();
        }
        if self.untold > 0 {
            let line = format!("[{} more bytes are not in the log]", self.untold);
            self.tell(line);
            self.untold = 0;
        }
    }

    fn tell_line(&mut self) {
        let line = printed_line(&self.partial);
        self.partial.clear();
        self.tell(line);
    }

    fn tell(&self, line: String) {
        let (id, stream) = (self.id, self.stream);
        if let Some(console) = &self.console {
            console.keep_line(&line);
        }
        self.log
            .emit_of(&self.machine, What::CommandOutput { id, stream, line });
    }
}

/// Where what a command prints goes, beside the log.
pub(super) trait Sink: Send {
    /// Takes bytes. False: wants no more.
    fn take(&mut self, bytes: &[u8]) -> impl Future<Output = bool> + Send;
}

/// Keeps bytes, up to a limit, for the answer.
#[derive(Clone)]
pub(super) struct Keep {
    kept: Arc<Mutex<Vec<u8>>>,
    most: usize,
    /// Goes on where there is too much, and keeps the beginning.
    forgiving: bool,
}

impl Keep {
    /// One for standard output: it wants no more where there is too much.
    pub(super) fn all() -> Self {
        Self {
            kept: Arc::default(),
            most: MOST_KEPT,
            forgiving: false,
        }
    }

    /// One for standard error: it leaves out what is too much.
    pub(super) fn beginning() -> Self {
        Self {
            kept: Arc::default(),
            most: MOST_ERRORS,
            forgiving: true,
        }
    }

    /// What has been kept so far, and is not kept any more.
    pub(super) fn drain(&self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Keep {
    async fn take(&mut self, bytes: &[u8]) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.most - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.forgiving || bytes.len() <= room
    }
}

/// Sends bytes to the client as parts.
pub(super) struct ToClient<'a> {
    pub(super) parts: &'a Parts,
    pub(super) part: fn(Data) -> Part,
}

impl Sink for ToClient<'_> {
    async fn take(&mut self, bytes: &[u8]) -> bool {
        let part = (self.part)(Data(bytes.to_vec()));
        self.parts.send(part).await.is_ok()
    }
}

/// Reads a stream to its end. What comes goes to the log, and to `sink`. False: `sink` wanted no
/// more before that.
pub(super) async fn read(
    mut from: impl AsyncRead + Unpin,
    mut teller: Teller,
    mut sink: impl Sink,
) -> bool {
    let mut buffer = vec![0; 32 * 1024];
    // A stream that breaks has ended; why, the exit says.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        teller.take(&buffer[..count]);
        if !sink.take(&buffer[..count]).await {
            teller.finish();
            return false;
        }
    }
    teller.finish();
    true
}

#[cfg(test)]
mod tests {
    use machinist_events::Event;

    use super::*;

    fn told(pieces: &[&[u8]]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&seen);
        let sink = Arc::new(move |event: &Event| {
            if let What::CommandOutput { line, .. } = &event.what {
                sink.lock().unwrap().push(line.clone());
            }
        });
        let log = Log::create(&directory.path().join("events.jsonl"), None, sink).unwrap();
        let mut teller = Teller::new(&Arc::new(log), "web", 1, Stream::Stdout);
        for piece in pieces {
            teller.take(piece);
        }
        teller.finish();
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[test]
    fn lines_are_told_however_they_come() {
        assert_eq!(told(&[b"a\nb", b"c\n", b"d"]), ["a", "bc", "d"]);
        assert_eq!(told(&[]), Vec::<String>::new());
        assert_eq!(told(&[b"\n\n"]), ["", ""]);
    }

    #[test]
    fn a_flood_is_cut_and_that_is_told() {
        let piece = [b'x'; 1023];
        let mut line = piece.to_vec();
        line.push(b'\n');
        let pieces: Vec<&[u8]> = std::iter::repeat_n(line.as_slice(), 1000).collect();
        let told = told(&pieces);
        assert_eq!(told.len(), TOLD / 1024 + 1);
        assert_eq!(
            told.last().unwrap(),
            &format!("[{} more bytes are not in the log]", 1000 * 1024 - TOLD)
        );
    }
}
