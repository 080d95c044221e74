//! `machinist attach`

use clap::Args;
use machinist_session::protocol::{Command, Program, Status, Verb};
use machinist_session::{Cancel, Found};

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::{prompt, sessions, terminal, ui};

/// Open a shell in a machine of a live session
///
/// Also in one of a test that stands still at a failure (`machinist test --on-failure pause`,
/// `nixos-test-driver --debug-hook-attach`), and, as root, in one of a test inside a Nix build.
#[derive(Debug, Args)]
pub struct Attach {
    /// The session: the beginning of its id, its test, a machine that only it has, or the path of its
    /// directory; may be left out where there is only one
    session: Option<String>,
    /// The machine; may be left out where there is only one
    machine: Option<String>,
    /// Open a Python prompt in the script of a test that stands still, with its names
    #[arg(long, conflicts_with_all = ["machine", "command", "go_on"])]
    python: bool,
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
                let found = paused(environment, name).await?;
                let mut client = sessions::connect(&found).await?;
                client.ask(Verb::Continue).await?;
                ui::status(format_args!("{}: goes on", found.card.session));
                return Ok(Exit::Passed);
            }
            if self.python {
                let found = paused(environment, name).await?;
                return python(&found).await;
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

/// The session that is named, or the only one that stands still.
async fn paused(environment: &Environment, name: Option<&str>) -> Result<Found, CliError> {
    match name {
        Some(_) => Ok(sessions::find_by(environment, name).await?.0),
        None => sessions::find_paused(environment).await,
    }
}

/// A prompt in the script.
async fn python(found: &Found) -> Outcome {
    let mut client = sessions::connect(found).await?;
    let status = client.call::<Status>(Verb::Status, |_| {}).await?;
    if !status.paused {
        let session = &found.card.session;
        return Err(CliError::usage(format!("{session}: its test is not paused"))
            .hint("a script can be looked into where it stands still: at a failure, or at debug.breakpoint()"));
    }
    if !status.python {
        return Err(CliError::usage("what is paused is no Python script"));
    }
    prompt::join(&found.path.join("python.sock")).await
}
