//! The last words of a backend: the end of what it printed itself.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::console::Console;

const KEPT: usize = 40;
/// Bytes after which a line without an end is cut.
const LONGEST: usize = 4096;

/// The last lines that a backend printed to its standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(Arc<Mutex<VecDeque<String>>>);

impl Words {
    pub(crate) fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Reads a pipe to its end, on a task of its own.
pub(crate) fn drain(
    pipe: impl Into<OwnedFd>,
    each: impl FnMut(&[u8]) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    drain_if(std::future::ready(true), pipe, each)
}

/// Reads a pipe to its end, on a task of its own, once it is known that it is to be read. Until then
/// it is left alone, as it is where it is not.
pub(crate) fn drain_if(
    wanted: impl Future<Output = bool> + Send + 'static,
    pipe: impl Into<OwnedFd>,
    mut each: impl FnMut(&[u8]) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe.into())?;
    Ok(tokio::spawn(async move {
        if !wanted.await {
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            each(&buffer[..count]);
        }
    }))
}

/// Reads a backend's console.
pub(crate) fn console(
    pipe: impl Into<OwnedFd>,
    console: Console,
) -> std::io::Result<JoinHandle<()>> {
    drain(pipe, move |bytes| console.feed(bytes))
}

/// Reads a backend's standard error.
pub(crate) fn words(pipe: impl Into<OwnedFd>, words: Words) -> std::io::Result<JoinHandle<()>> {
    words_if(std::future::ready(true), pipe, words)
}

/// Reads a backend's standard error, as [`drain_if`] does.
pub(crate) fn words_if(
    wanted: impl Future<Output = bool> + Send + 'static,
    pipe: impl Into<OwnedFd>,
    words: Words,
) -> std::io::Result<JoinHandle<()>> {
    let mut take = lines(words);
    drain_if(wanted, pipe, move |bytes| take(bytes))
}

/// Reads a standard error that belongs to the console, too.
pub(crate) fn tee(
    pipe: impl Into<OwnedFd>,
    console: Console,
    words: Words,
) -> std::io::Result<JoinHandle<()>> {
    let mut take = lines(words);
    drain(pipe, move |bytes| {
        console.feed(bytes);
        take(bytes);
    })
}

/// Cuts what comes into lines.
fn lines(words: Words) -> impl FnMut(&[u8]) {
    let mut cutter = Cutter {
        words,
        partial: Vec::new(),
    };
    move |bytes: &[u8]| cutter.feed(bytes)
}

struct Cutter {
    words: Words,
    partial: Vec<u8>,
}

impl Cutter {
    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LONGEST.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.push();
            }
        }
    }

    fn push(&mut self) {
        let line = String::from_utf8_lossy(&self.partial);
        self.words.push(line.trim_end().to_owned());
        self.partial.clear();
    }
}

impl Drop for Cutter {
    /// What dies may do so in the middle of a line.
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.push();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_needs_no_end() {
        let words = Words::default();
        let mut take = lines(words.clone());
        take(b"one\r\ntw");
        take(b"o\n\nthree");
        assert_eq!(words.lines(), ["one", "two", ""]);
        drop(take);
        assert_eq!(words.lines(), ["one", "two", "", "three"]);
    }
}
