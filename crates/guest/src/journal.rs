//! Following the guest's journal.

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::agent::Agent;
use crate::command::Command;
use crate::error::GuestError;
use crate::process::Running;
use crate::stream::Reader;

/// Lines that a running command prints. Dropping this ends the command.
#[derive(Debug)]
pub struct Lines {
    lines: tokio::io::Lines<BufReader<Reader>>,
    _process: Running,
}

impl Lines {
    /// The next line, without its end; none when there are no more.
    ///
    /// # Errors
    /// The channel ended, or the line is not text.
    pub async fn next(&mut self) -> std::io::Result<Option<String>> {
        self.lines.next_line().await
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
        let (_, stdout, _, keep) = process.split();
        Ok(Lines {
            lines: BufReader::new(stdout).lines(),
            _process: keep,
        })
    }
}
