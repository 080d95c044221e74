//! The event log: one file, one writer, any number of readers.
//!
//! Readers follow the file itself. So each gets everything from where it began, in order, at its
//! own pace, and a slow one costs nothing: there is no queue that could run over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use machinist_events::{Event, What};
use tokio::sync::watch;

use crate::engine::EventSink;

/// How far the log has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    bytes: u64,
    closed: bool,
}

/// The writing end of an event log.
pub(crate) struct Log {
    path: PathBuf,
    began: Instant,
    test: Option<String>,
    file: Mutex<File>,
    sink: EventSink,
    progress: watch::Sender<Progress>,
    ids: AtomicU64,
}

impl Log {
    pub(crate) fn create(path: &Path, test: Option<String>, sink: EventSink) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            path: path.to_owned(),
            began: Instant::now(),
            test,
            file: Mutex::new(file),
            sink,
            progress: watch::Sender::new(Progress {
                bytes: 0,
                closed: false,
            }),
            ids: AtomicU64::new(1),
        })
    }

    /// A new number for a command or a wait.
    pub(crate) fn new_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Something happened to no machine in particular.
    pub(crate) fn emit(&self, what: What) {
        self.write(None, what);
    }

    /// Something happened to `machine`.
    pub(crate) fn emit_of(&self, machine: &str, what: What) {
        self.write(Some(machine), what);
    }

    fn write(&self, machine: Option<&str>, what: What) {
        // A panic in a sink must not silence the log.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut event = Event::now(self.began.elapsed(), what);
        event.machine = machine.map(str::to_owned);
        event.test.clone_from(&self.test);
        (self.sink)(&event);
        let Ok(mut line) = serde_json::to_vec(&event) else {
            return;
        };
        line.push(b'\n');
        // A full disk loses the file, not the test: the sink has the event. What was written of a
        // line goes, so that whole ones can follow when there is room again.
        if file.write_all(&line).is_ok() {
            let length = line.len() as u64;
            self.progress
                .send_modify(|progress| progress.bytes += length);
        } else {
            drop(file.set_len(self.progress.borrow().bytes));
        }
    }

    /// No more events will come: followers end.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// A reader from the first event on, or (`past` false) from the next one on.
    pub(crate) fn follow(&self, past: bool) -> io::Result<Follower> {
        let mut file = File::open(&self.path)?;
        let progress = self.progress.subscribe();
        let at = if past { 0 } else { progress.borrow().bytes };
        file.seek(SeekFrom::Start(at))?;
        Ok(Follower {
            file,
            at,
            progress,
            pending: Vec::new(),
            begin: 0,
        })
    }
}

/// A reader of an event log.
#[derive(Debug)]
pub struct Follower {
    file: File,
    at: u64,
    progress: watch::Receiver<Progress>,
    pending: Vec<u8>,
    begin: usize,
}

impl Follower {
    /// The next event; `None` when the session has ended and all has been read.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            let progress = *self.progress.borrow_and_update();
            if progress.bytes > self.at {
                self.read(progress.bytes)?;
            } else if progress.closed || self.progress.changed().await.is_err() {
                // A writer that was dropped without `close` writes no more either.
                return Ok(None);
            }
        }
    }

    /// The next event that is there already.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next_past(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            let end = self.progress.borrow().bytes;
            if end <= self.at {
                return Ok(None);
            }
            self.read(end)?;
        }
    }

    /// An event of what has been read. Lines of a newer machinist that say nothing to us are
    /// skipped.
    fn take(&mut self) -> io::Result<Option<Event>> {
        while let Some(length) = self.pending[self.begin..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let line = &self.pending[self.begin..self.begin + length];
            let event = serde_json::from_slice(line).ok();
            self.begin += length + 1;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Reads on, at most up to `end`: from the host's page cache, so it does not block for long.
    fn read(&mut self, end: u64) -> io::Result<()> {
        const CHUNK: u64 = 64 * 1024;
        self.pending.drain(..self.begin);
        self.begin = 0;
        let want = (end - self.at).min(CHUNK);
        let got = (&mut self.file).take(want).read_to_end(&mut self.pending)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use machinist_events::Level;

    use super::*;

    fn said(text: &str) -> What {
        What::Log {
            text: text.into(),
            level: Level::Info,
        }
    }

    #[tokio::test]
    async fn followers_get_everything_from_where_they_began() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let log = Log::create(&path, Some("t".into()), Arc::new(|_| {})).unwrap();
        log.emit(said("one"));
        let mut all = log.follow(true).unwrap();
        let mut new = log.follow(false).unwrap();
        assert!(log.follow(false).unwrap().next_past().unwrap().is_none());
        log.emit_of("web", said("two"));
        // Readers do not need the name of the file any more.
        std::fs::remove_file(&path).unwrap();
        let first = all.next().await.unwrap().unwrap();
        assert_eq!(first.what, said("one"));
        assert_eq!(first.test.as_deref(), Some("t"));
        for follower in [&mut all, &mut new] {
            let event = follower.next().await.unwrap().unwrap();
            assert_eq!(event.what, said("two"));
            assert_eq!(event.machine.as_deref(), Some("web"));
        }
        let waiting = tokio::spawn(async move { all.next().await.unwrap() });
        log.emit(said("three"));
        assert_eq!(waiting.await.unwrap().unwrap().what, said("three"));
        log.close();
        assert_eq!(new.next().await.unwrap().unwrap().what, said("three"));
        assert!(new.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn long_logs_are_read_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let log = Log::create(&path, None, Arc::new(|_| {})).unwrap();
        let text = "x".repeat(50_000);
        for _ in 0..20 {
            log.emit(said(&text));
        }
        log.close();
        let mut all = log.follow(true).unwrap();
        let mut seen = 0;
        while let Some(event) = all.next().await.unwrap() {
            assert_eq!(event.what, said(&text));
            seen += 1;
        }
        assert_eq!(seen, 20);
    }
}
