//! Following the guest's journal.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::{Instant, timeout_at};

use crate::agent::Agent;
use crate::command::Command;
use crate::error::GuestError;
use crate::process::Running;
use crate::stream::Reader;

/// Bytes of a line that are kept: a guest must not fill the host's memory by one.
const LONGEST: usize = 1 << 20;
/// Bytes of journalctl's complaint that are told.
const COMPLAINT: u64 = 4096;

/// Lines that `journalctl` prints. Dropping this ends it.
#[derive(Debug)]
pub struct Lines {
    stdout: BufReader<Reader>,
    stderr: Reader,
    _process: Running,
}

impl Lines {
    /// The next line, without its end, cut after 1 MiB; none when there are no more.
    ///
    /// # Errors
    /// The channel ended.
    pub async fn next(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let bytes = self.stdout.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LONGEST - line.len();
            line.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(bytes.len(), |end| end + 1);
            self.stdout.consume(used);
            if end.is_some() {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
        }
    }

    /// Why there are no more.
    async fn complaint(self) -> GuestError {
        let mut said = Vec::new();
        // What was said until then is all there is.
        drop(self.stderr.take(COMPLAINT).read_to_end(&mut said).await);
        let said = String::from_utf8_lossy(&said);
        GuestError::Refused {
            text: format!("journalctl ended: {}", said.trim()),
            errno: 0,
        }
    }
}

impl Agent {
    /// Follows the journal: one JSON object for each line, from now on. `arguments` are added to
    /// `journalctl --follow --output=json`, such as `--lines=all`, `--unit=...`.
    ///
    /// # Errors
    /// The guest has no `journalctl`, or the channel ended.
    pub async fn follow_journal(&self, arguments: &[&str]) -> Result<Lines, GuestError> {
        let words = ["journalctl", "--follow", "--output=json", "--no-pager"];
        let command = Command::argv(words.iter().chain(arguments));
        let process = self.spawn(&command).await?;
        let (_, stdout, stderr, keep) = process.split();
        Ok(Lines {
            stdout: BufReader::new(stdout),
            stderr,
            _process: keep,
        })
    }

    /// Waits until the journal of this boot has an entry whose message is `wanted`, written before
    /// or from now on.
    ///
    /// # Errors
    /// It has none until the deadline, the guest has no `journalctl`, or the channel ended.
    pub async fn wait_journal(
        &self,
        mut wanted: impl FnMut(&str) -> bool,
        deadline: Instant,
    ) -> Result<(), GuestError> {
        let arguments = ["--boot", "--lines=all", "--all", "--output-fields=MESSAGE"];
        let found = async {
            let mut lines = self.follow_journal(&arguments).await?;
            while let Ok(Some(line)) = lines.next().await {
                if message(&line).is_some_and(|message| wanted(&message)) {
                    return Ok(());
                }
            }
            match self.reason() {
                Some(reason) => Err(reason.into()),
                None => Err(lines.complaint().await),
            }
        };
        let late = || GuestError::TimedOut {
            what: "an entry of the journal".into(),
        };
        timeout_at(deadline, found).await.map_err(|_| late())?
    }
}

/// The message of an entry. One that is not text comes as a list of its bytes.
fn message(entry: &str) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(entry).ok()?;
    match entry.get("MESSAGE")? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            let bytes: Option<Vec<u8>> = bytes.collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_text_or_bytes() {
        assert_eq!(
            message(r#"{"MESSAGE":"a \"b\"","X":1}"#).as_deref(),
            Some("a \"b\"")
        );
        assert_eq!(
            message(r#"{"MESSAGE":[104,105,255]}"#).as_deref(),
            Some("hi\u{fffd}")
        );
        for nothing in ["{}", r#"{"MESSAGE":null}"#, r#"{"MESSAGE":[300]}"#, "-- x"] {
            assert_eq!(message(nothing), None);
        }
    }
}
