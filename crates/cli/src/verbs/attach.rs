//! `machinist attach`

use clap::Args;
use machinist_session::Cancel;
use machinist_session::protocol::{Command, Program, Verb};

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::{sessions, terminal, ui};

/// Open a shell in a machine of a live session
///
/// Also in one of a test that stands still at a failure (`machinist test --on-failure pause`).
#[derive(Debug, Args)]
pub struct Attach {
    /// The session: the beginning of its id, its test, or a machine that only it has; may be left
    /// out where there is only one
    session: Option<String>,
    /// The machine; may be left out where there is only one
    machine: Option<String>,
    /// Let a test that stands still go on to its end, instead of opening a shell
    #[arg(long = "continue", conflicts_with_all = ["machine", "command"])]
    go_on: bool,
    /// A command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Attach {
    /// Opens it; the exit code is that of the shell.
    pub fn run(self, environment: &Environment) -> Outcome {
        block_on(async {
            let name = self.session.as_deref();
            if self.go_on {
                let found = match name {
                    Some(_) => sessions::find_by(environment, name).await?.0,
                    None => sessions::find_paused(environment).await?,
                };
                let mut client = sessions::connect(&found).await?;
                client.ask(Verb::Continue).await?;
                ui::status(format_args!("{}: goes on", found.card.session));
                return Ok(Exit::Passed);
            }
            let (found, meant) = sessions::find_by(environment, name).await?;
            let client = sessions::connect(&found).await?;
            let machine = self.machine.or(meant);
            let machine = sessions::machine(&client, machine.as_deref())?;
            let has_command = !self.command.is_empty();
            let command = has_command.then(|| Command::of(Program::Argv(self.command)));
            let pty = if has_command { None } else { terminal::pty() };
            let has_pty = pty.is_some();
            let shell = client.shell(&machine, command, pty).await?;
            terminal::carry(shell, has_pty, &Cancel::new()).await
        })
    }
}
