//! What a machine says on its console: a file, the lines so far, and those to come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::path_error::{PathContext, PathError};

/// Lines that are kept in memory, and bytes in them. The file keeps more.
const KEPT: usize = 50_000;
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that the file takes, and bytes in lines that are told. A machine that writes without end
/// must not fill the host's memory, where these mostly lie.
const FILE: usize = 64 * 1024 * 1024;
const TOLD: usize = 16 * 1024 * 1024;
/// Bytes after which a line without an end is cut.
const LONGEST: usize = 16 * 1024;

/// What stands where the rest is left out.
const LEFT_OUT: &[u8] = b"\n[machinist: this console says too much, the rest is left out here]\n";

/// Called with every whole line.
pub(crate) type OnLine = Box<dyn Fn(&str) + Send + Sync>;

/// A machine's console. Clones are the same console; it outlives restarts of the machine.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// Counts what came, so that waiting for more misses nothing.
    version: watch::Sender<u64>,
    on_line: OnLine,
}

struct Log {
    file: Option<File>,
    /// Bytes that the file has taken.
    filed: usize,
    /// Bytes in lines that were told.
    told: usize,
    lines: VecDeque<Arc<str>>,
    /// Bytes in `lines`.
    bytes: usize,
    /// Lines that were dropped from the front.
    dropped: u64,
    partial: Vec<u8>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// A console whose log is the file at `path`; without a path it is in memory alone.
    pub(crate) fn new(path: Option<&Path>, on_line: OnLine) -> Result<Self, PathError> {
        let file = path
            .map(|path| {
                File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .path(path)
            })
            .transpose()?;
        Ok(Self {
            shared: Arc::new(Shared {
                log: Mutex::new(Log {
                    file,
                    filed: 0,
                    told: 0,
                    bytes: 0,
                    lines: VecDeque::new(),
                    dropped: 0,
                    partial: Vec::new(),
                }),
                version: watch::Sender::new(0),
                on_line,
            }),
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A poisoned log is a log: nothing in it can be half done.
        self.shared
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the machine wrote.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        let mut whole = Vec::new();
        {
            let mut log = self.log();
            log.write(bytes);
            for &byte in bytes {
                if byte == b'\n' || log.partial.len() >= LONGEST {
                    let line = log.end_line();
                    whole.extend(log.tell_of(line));
                }
                if byte != b'\n' {
                    log.partial.push(byte);
                }
            }
        }
        for line in &whole {
            (self.shared.on_line)(line);
        }
        self.shared.version.send_modify(|version| *version += 1);
    }

    /// Takes a line that the machine would have written here, had it not been read elsewhere and
    /// told already: it is kept, and found by who waits for it.
    pub fn keep_line(&self, line: &str) {
        self.log().keep(line.into());
        self.shared.version.send_modify(|version| *version += 1);
    }

    /// The last `count` lines, also one that has no end yet.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<String> {
        let log = self.log();
        let mut lines: Vec<String> = log
            .lines
            .iter()
            .rev()
            .take(count)
            .rev()
            .map(|line| line.to_string())
            .collect();
        if !log.partial.is_empty() {
            lines.push(text(&log.partial));
        }
        let excess = lines.len().saturating_sub(count);
        lines.drain(..excess);
        lines
    }

    /// A reader that begins with the first line that is kept.
    #[must_use]
    pub fn lines(&self) -> ConsoleLines {
        ConsoleLines {
            console: self.clone(),
            next: 0,
            version: self.shared.version.subscribe(),
        }
    }

    /// Waits until a line fulfils `wanted`, beginning with the first that is kept, and returns it.
    /// A line that has no end yet (a prompt) counts as it is. `None` after `within`.
    pub async fn wait_for(
        &self,
        within: Duration,
        wanted: impl FnMut(&str) -> bool,
    ) -> Option<String> {
        self.lines().find(within, wanted).await
    }
}

impl Log {
    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.filed = self.filed.saturating_add(bytes.len());
        let full = self.filed > FILE;
        let written = file.write_all(if full { LEFT_OUT } else { bytes });
        // A full disk takes the log's file, not the machine.
        if full || written.is_err() {
            self.file = None;
        }
    }

    fn tell_of(&mut self, line: Arc<str>) -> Option<Arc<str>> {
        let before = self.told;
        self.told = before.saturating_add(line.len() + 1);
        match (before <= TOLD, self.told <= TOLD) {
            (_, true) => Some(line),
            (true, false) => Some(String::from_utf8_lossy(LEFT_OUT).trim().into()),
            (false, false) => None,
        }
    }

    fn end_line(&mut self) -> Arc<str> {
        let line: Arc<str> = text(&self.partial).into();
        self.partial.clear();
        self.keep(Arc::clone(&line));
        line
    }

    fn keep(&mut self, line: Arc<str>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(old) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= old.len();
            self.dropped += 1;
        }
    }
}

/// A line as text, without the carriage return that terminals end it with.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|&byte| byte != b'\r')
        .map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A reader of a console's lines.
#[derive(Debug)]
pub struct ConsoleLines {
    console: Console,
    next: u64,
    version: watch::Receiver<u64>,
}

impl ConsoleLines {
    /// The number of the line that comes next, counted from 0 with the console's first, whether or
    /// not that is still kept. After a line it is one more than that line's.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next line that is there already.
    pub fn try_next(&mut self) -> Option<Arc<str>> {
        let log = self.console.log();
        let from = self.next.max(log.dropped);
        let line = log.lines.get(usize::try_from(from - log.dropped).ok()?)?;
        self.next = from + 1;
        Some(Arc::clone(line))
    }

    /// The next line, when it comes.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            self.version.borrow_and_update();
            if let Some(line) = self.try_next() {
                return Some(line);
            }
            self.version.changed().await.ok()?;
        }
    }

    /// Waits until a line fulfils `wanted`. A line that has no end yet counts as it is.
    pub async fn find(
        &mut self,
        within: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Option<String> {
        let search = async {
            loop {
                self.version.borrow_and_update();
                while let Some(line) = self.try_next() {
                    if wanted(&line) {
                        return Some(line.to_string());
                    }
                }
                let partial = text(&self.console.log().partial);
                if !partial.is_empty() && wanted(&partial) {
                    return Some(partial);
                }
                self.version.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, search).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> Console {
        Console::new(None, Box::new(|_| {})).unwrap()
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        let console = console();
        console.feed(b"one\r\ntw");
        console.feed(b"o\nlogin: ");
        assert_eq!(console.tail(10), ["one", "two", "login: "]);
        assert_eq!(console.tail(1), ["login: "]);
        let mut lines = console.lines();
        assert_eq!(lines.try_next().as_deref(), Some("one"));
        assert_eq!(lines.try_next().as_deref(), Some("two"));
        assert_eq!(lines.try_next(), None);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let console = console();
        console.feed(&vec![b'x'; 3 * LONGEST]);
        assert_eq!(
            console.lines().try_next().map(|line| line.len()),
            Some(LONGEST)
        );
    }

    #[test]
    fn old_lines_make_room() {
        let console = console();
        for number in 0..KEPT + 3 {
            console.feed(format!("{number}\n").as_bytes());
        }
        let mut lines = console.lines();
        assert_eq!(lines.try_next().as_deref(), Some("3"));
        // Its number is that of all lines that ever came.
        assert_eq!(lines.position(), 4);
    }

    #[test]
    fn a_flood_fills_neither_memory_nor_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let told = Arc::new(Mutex::new((0, String::new())));
        let telling = Arc::clone(&told);
        let on_line = move |line: &str| {
            let mut told = telling.lock().unwrap();
            *told = (told.0 + line.len(), line.to_owned());
        };
        let console = Console::new(Some(&path), Box::new(on_line)).unwrap();
        let mut piece = vec![b'x'; LONGEST - 1];
        piece.push(b'\n');
        for _ in 0..FILE / LONGEST + 10 {
            console.feed(&piece);
        }
        console.feed(b"the end\n");
        assert_eq!(console.tail(1), ["the end"]);
        assert!(console.log().bytes <= KEPT_BYTES);
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, (FILE + LEFT_OUT.len()) as u64);
        let (bytes, last) = told.lock().unwrap().clone();
        assert!(bytes <= TOLD + LEFT_OUT.len(), "{bytes}");
        assert!(last.contains("left out"), "{last}");
    }

    #[tokio::test]
    async fn waiting_sees_old_new_and_unfinished_lines() {
        let console = console();
        console.feed(b"booting\n");
        let within = Duration::from_secs(10);
        let found = console.wait_for(within, |line| line == "booting").await;
        assert_eq!(found.as_deref(), Some("booting"));
        let waiting = console.clone();
        let prompt =
            tokio::spawn(async move { waiting.wait_for(within, |l| l.ends_with("login: ")).await });
        console.feed(b"web login: ");
        assert_eq!(prompt.await.unwrap().as_deref(), Some("web login: "));
        let never = console.wait_for(Duration::from_millis(5), |_| false).await;
        assert_eq!(never, None);
    }
}
