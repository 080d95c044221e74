//! Waiting, by looking again and again: a shell tells nothing by itself.

use std::time::Duration;

use machinist_wire::StreamId;
use machinist_wire::message::Condition;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::super::Break;
use super::super::quote::word;
use super::Plain;
use super::job::{Outcome, Purpose};
use super::script;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);

pub(super) struct Waiting {
    pub(super) stream: StreamId,
    condition: Condition,
    /// When to look; none while somebody looks.
    next: Option<Instant>,
    pause: Duration,
}

impl Waiting {
    pub(super) fn new(stream: StreamId, condition: Condition) -> Self {
        Self {
            stream,
            condition,
            next: Some(Instant::now()),
            pause: FIRST,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// What is typed to look.
    fn command(&self) -> Vec<u8> {
        let quoted = |bytes: &[u8]| String::from_utf8_lossy(&word(bytes)).into_owned();
        match &self.condition {
            Condition::File(path) => script::check(&format!("test -e {}", quoted(&path.0))),
            Condition::Port { host, port, .. } => {
                let host = quoted(host.as_bytes());
                script::check(&format!(
                    "if command -v bash >/dev/null; then timeout 5 bash -c ': <\"/dev/tcp/$0/{port}\"' {host}; \
                     else nc -z {host} {port}; fi"
                ))
            }
            Condition::Socket { .. } => script::check("cat /proc/net/unix"),
        }
    }

    /// Whether it holds, by what looking gave.
    fn holds(&self, outcome: &Outcome) -> bool {
        match &self.condition {
            Condition::File(_) => outcome.status == 0,
            Condition::Port { open, .. } => (outcome.status == 0) == *open,
            Condition::Socket { path, datagram } => {
                let text = String::from_utf8_lossy(&outcome.stdout);
                text.lines()
                    .any(|line| listens(line, &path.to_string(), *datagram))
            }
        }
    }
}

/// Whether a line of /proc/net/unix tells of a socket that takes connections, or datagrams, at `path`.
fn listens(line: &str, path: &str, datagram: bool) -> bool {
    let mut fields = line.split_whitespace().skip(3);
    let (flags, kind) = (fields.next(), fields.next());
    let there = line
        .split_once(" /")
        .is_some_and(|(_, rest)| format!("/{rest}") == path);
    let takes = if datagram {
        kind == Some("0002")
    } else {
        // The kernel's mark of a listener; connections have the same path.
        flags == Some("00010000") && kind != Some("0002")
    };
    there && takes
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Plain<'_, T> {
    /// Looks for all whose time has come.
    pub(super) async fn look(&mut self) -> Result<(), Break> {
        let now = Instant::now();
        let due = self.waits.iter_mut();
        let due = due.filter(|wait| wait.next.is_some_and(|at| at <= now));
        let looks: Vec<_> = due
            .map(|wait| {
                wait.next = None;
                (wait.stream, wait.command())
            })
            .collect();
        for (stream, command) in looks {
            self.start(Purpose::Wait(stream), &command).await?;
        }
        Ok(())
    }

    pub(super) fn looked(&mut self, stream: StreamId, outcome: &Outcome) {
        let wait = self.waits.iter().position(|wait| wait.stream == stream);
        match wait {
            Some(at) if self.waits[at].holds(outcome) => {
                self.waits.swap_remove(at);
                self.done(stream);
            }
            _ => self.look_again(stream),
        }
    }

    pub(super) fn look_again(&mut self, stream: StreamId) {
        if let Some(wait) = self.waits.iter_mut().find(|wait| wait.stream == stream) {
            wait.next = Some(Instant::now() + wait.pause);
            wait.pause = (wait.pause * 2).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_sockets() {
        let listener = "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a b.sock";
        assert!(listens(listener, "/run/a b.sock", false));
        assert!(!listens(listener, "/run/a", false));
        assert!(!listens(listener, "/run/a b.sock", true));
        let connected = "0000000000000000: 00000003 00000000 00000000 0001 03 12346 /run/a b.sock";
        assert!(!listens(connected, "/run/a b.sock", false));
        let datagrams = "0000000000000000: 00000002 00000000 00000000 0002 01 12347 /run/log";
        assert!(listens(datagrams, "/run/log", true));
        assert!(!listens(
            "Num RefCount Protocol Flags Type St Inode Path",
            "/run/log",
            true
        ));
    }
}
