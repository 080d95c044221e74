//! A command that runs in the guest, in the background of the shell.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinist_wire::StreamId;

use super::super::bring::Nonce;

/// The most that a command may print: all of it is kept until its end.
const MAX_OUTPUT: usize = 256 * 1024 * 1024;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Run(StreamId),
    Wait(StreamId),
    Get(StreamId),
    /// Whoever wanted it has lost interest.
    Nothing,
}

/// What a line told of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Started(u32),
    More,
    Ended,
}

/// What came of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: i32,
}

pub(super) struct Job {
    pub(super) purpose: Purpose,
    nonce: Nonce,
    text: String,
    pub(super) pid: Option<u32>,
    /// The host knows that it runs.
    pub(super) announced: bool,
    pub(super) expired: bool,
    /// A signal was asked for before its process id was known.
    owed: Option<String>,
}

impl Job {
    /// A job, and what is typed to start it. `command` is a shell's simple command that prints
    /// `$0=$$` on descriptor 5 when it runs. Its output, then its errors, then its status travel in
    /// one piece, each behind the number, so that nothing needs a file.
    pub(super) fn new(purpose: Purpose, command: &[u8]) -> (Self, Vec<u8>) {
        let nonce = Nonce::new();
        let mut line = nonce.assignment().into_bytes();
        line.extend_from_slice(b"; { { e=$( { ");
        line.extend_from_slice(command);
        line.extend_from_slice(
            b"; } 2>&1 >&4 4>&-; printf '%s' \"$n$?\" ); printf '%s' \"$n$e\"; } 4>&1 \
              | base64 | sed \"s/^/$n:/\"; echo \"$n.\"; } 5>&1 </dev/null &\n",
        );
        let job = Self {
            purpose,
            nonce,
            text: String::new(),
            pid: None,
            announced: false,
            expired: false,
            owed: None,
        };
        (job, line)
    }

    pub(super) fn is_of(&self, stream: StreamId) -> bool {
        match self.purpose {
            Purpose::Run(own) | Purpose::Wait(own) | Purpose::Get(own) => own == stream,
            Purpose::Nothing => false,
        }
    }

    /// Takes a line, if it is this job's.
    pub(super) fn take(&mut self, line: &str) -> Option<Told> {
        let said = self.nonce.answer(line)?;
        if let Some(piece) = said.strip_prefix(':') {
            if self.text.len() < MAX_OUTPUT {
                self.text.push_str(piece.trim());
            }
            return Some(Told::More);
        }
        if let Some(pid) = said.strip_prefix('=') {
            self.pid = pid.trim().parse().ok();
            return Some(self.pid.map_or(Told::More, Told::Started));
        }
        said.starts_with('.').then_some(Told::Ended)
    }

    /// What is typed to send it a signal, once its process id is known.
    pub(super) fn signal(&mut self, signal: &str) -> Option<String> {
        match self.pid {
            // It leads a group, where the guest has `setsid`.
            Some(pid) => Some(format!(
                "kill -{signal} -{pid} 2>/dev/null || kill -{signal} {pid} 2>/dev/null\n"
            )),
            None => {
                self.owed = Some(signal.to_owned());
                None
            }
        }
    }

    /// What is typed now that its process id is known.
    pub(super) fn owed(&mut self) -> Option<String> {
        let signal = self.owed.take()?;
        self.signal(&signal)
    }

    /// What is typed to end it, politely at first.
    pub(super) fn end(&mut self) -> Option<String> {
        let polite = self.signal("TERM")?;
        let hard = self.signal("KILL")?;
        Some(format!(
            "{} ; {{ sleep 0.5 || sleep 1; {}; }} &\n",
            polite.trim_end(),
            hard.trim_end()
        ))
    }

    /// Whoever wanted it has lost interest. What is typed to end it.
    pub(super) fn abandon(&mut self) -> Option<String> {
        self.purpose = Purpose::Nothing;
        self.signal("KILL")
    }

    /// What came of it.
    pub(super) fn result(self) -> Result<Outcome, String> {
        let garbled = || "what the machine's console prints got into the answer".to_owned();
        let bytes = STANDARD.decode(&self.text).map_err(|_| garbled())?;
        let mark = self.nonce.text().as_bytes();
        let (rest, status) = split_last(&bytes, mark).ok_or_else(garbled)?;
        let (stdout, stderr) = split_last(rest, mark).ok_or_else(garbled)?;
        let status = std::str::from_utf8(status).ok();
        Ok(Outcome {
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
            status: status
                .and_then(|it| it.trim().parse().ok())
                .ok_or_else(garbled)?,
        })
    }
}

/// What stands before and behind the last `mark`.
fn split_last<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).rposition(|it| it == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}
