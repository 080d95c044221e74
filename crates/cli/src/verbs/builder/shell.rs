//! `machinist builder shell`

use clap::Args;
use machinist_builder::{Asked, Said};
use machinist_session::protocol::{Command, Program};
use machinist_session::{Cancel, Client};

use super::{find, refused, service};
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::verbs::block_on;
use crate::{terminal, ui};

/// Open a shell in a builder's machine, as its root; the machine is started if needed
#[derive(Debug, Args)]
pub struct Shell {
    /// The builder
    name: String,
    /// A command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Shell {
    /// Opens it; the exit code is that of the shell.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = find(&self.name)?;
        // As long as it is held, the machine runs.
        let mut held = service(environment, &state)?;
        let mut note = |text: &str| ui::status(text);
        let session = match held.ask(&Asked::Hold, &mut note).map_err(refused)? {
            Said::Held { session, .. } => session,
            _ => return Err(CliError::machinery("its service gave no session")),
        };
        let name = state.name();
        block_on(async {
            let client = Client::connect(&session).await?;
            let has_command = !self.command.is_empty();
            let command = has_command.then(|| Command::of(Program::Argv(self.command)));
            let pty = if has_command { None } else { terminal::pty() };
            let has_pty = pty.is_some();
            let shell = client.shell(&name, command, pty).await?;
            let ended = terminal::carry(shell, has_pty, &Cancel::new()).await;
            drop(held);
            ended
        })
    }
}
