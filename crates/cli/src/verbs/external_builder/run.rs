//! `machinist external-builder run`: what Nix calls, with a file that describes the build.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use machinist_builder::external::{self, BEGIN, Carried};
use rustix::process::Signal;

use crate::environment;
use crate::error::CliError;
use crate::exit::Exit;

/// Build what a file of Nix's describes
#[derive(Debug, Args)]
pub struct Run {
    /// The builder
    name: String,
    /// Where its service of external builds listens, where that is not the usual place
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// The description of the build, as Nix writes it
    #[arg(value_name = "BUILD.JSON")]
    description: PathBuf,
}

impl Run {
    /// Ends as the build does.
    pub fn run(self) -> Exit {
        let socket = self.socket.unwrap_or_else(|| external::socket(&self.name));
        let search = environment::var("PATH").unwrap_or_default();
        let mut log = std::io::stdout();
        // Nix waits for that, and shows what comes behind it.
        if write!(log, "{BEGIN}").and_then(|()| log.flush()).is_err() {
            return Exit::Machinery;
        }
        let carried = external::run(&self.name, &socket, &self.description, &search, &mut log);
        match carried {
            Ok(Carried::Exit(code)) => Exit::Command(u8::try_from(code).unwrap_or(1)),
            Ok(Carried::Signal(number)) => die_by(number),
            Err(error) => {
                let text = CliError::machinery(error).chain().join(": ");
                // As a line of the log: that is what users of the daemon see.
                let name = &self.name;
                drop(writeln!(log, "error: external builder {name}: {text}"));
                Exit::Command(1)
            }
        }
    }
}

/// Ends as the build did, so that Nix says of it what it would have said.
fn die_by(number: i32) -> Exit {
    if let Some(signal) = Signal::from_named_raw(number) {
        _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    Exit::Command(u8::try_from(128 + number).unwrap_or(1))
}
