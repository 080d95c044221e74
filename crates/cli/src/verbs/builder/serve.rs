//! `machinist builder serve`: a builder's service. systemd and launchd run it with the listening
//! socket as its standard input; `machinist connect` and `machinist builder start` run it where
//! neither does.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use clap::Args;
use machinist_builder::{Service, ServiceError, connect, is_listening};

use super::find;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::interrupt::Signals;
use crate::ui;
use crate::verbs::block_on;
use crate::verbs::up::background;

/// Run a builder's service
#[derive(Debug, Args)]
pub struct Serve {
    /// The builder, or its directory
    name: String,
    /// Say one line when it listens, and leave the terminal
    #[arg(long, hide = true)]
    detach: bool,
}

impl Serve {
    /// Runs it until SIGTERM.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = find(&self.name)?;
        if self.detach {
            background::leave_session()?;
        }
        block_on(async {
            let mut signals = Signals::listen()?;
            let inherited = inherited()?;
            let tell = !self.detach;
            let listener = Arc::new(move |line: &str| {
                if tell {
                    ui::status(line);
                }
            });
            let service = match Service::listen(&state, &environment.exe, inherited, listener) {
                Err(error @ ServiceError::Runs { .. }) => {
                    ui::error(&CliError::usage(error));
                    return Ok(Exit::Command(connect::RUNS_ALREADY));
                }
                service => service.map_err(CliError::machinery)?,
            };
            if self.detach {
                let mut stdout = std::io::stdout();
                drop(writeln!(stdout, "listening").and_then(|()| stdout.flush()));
                background::leave_terminal()?;
            }
            let ended = service.run(async {
                signals.next().await;
            });
            ended.await.map_err(CliError::machinery)?;
            Ok(Exit::Passed)
        })
    }
}

/// The socket of an init system, if it gave us one.
pub fn inherited() -> Result<Option<OwnedFd>, CliError> {
    let stdin = std::io::stdin();
    if !is_listening(&stdin) {
        return Ok(None);
    }
    let socket = stdin.as_fd().try_clone_to_owned();
    socket.map(Some).map_err(CliError::machinery)
}
