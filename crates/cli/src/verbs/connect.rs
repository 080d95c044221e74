//! `machinist connect`: what Nix's daemon runs to reach a builder.
//!
//! It is run for every build, by the daemon and not by a user. So it starts quickly, says nothing on
//! its standard output but Nix's protocol, and what it has to tell it says in the one way that
//! reaches the user whose build it is.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use machinist_builder::connect::nix_message;
use machinist_builder::{Asked, Client, Said, State};

use super::builder::launch;
use crate::Outcome;
use crate::environment::{self, Environment};
use crate::error::CliError;
use crate::exit::Exit;

/// Nix's level of an error.
const ERROR: u8 = 0;
/// Nix's level of what it says anyway.
const INFO: u8 = 3;

/// Be the connection of Nix's daemon to a builder, as `ssh` would be
///
/// For machine lines: `ssh-ng://localhost?remote-program=/PATH/machinist%20connect%20NAME`.
#[derive(Debug, Args)]
pub struct Connect {
    /// The builder, or its directory
    name: String,
    /// Speak over standard input and output; there is no other way
    #[arg(long)]
    stdio: bool,
    /// Nix's own: the store that it means
    #[arg(long, hide = true)]
    store: Option<String>,
}

impl Connect {
    /// Connects, where the words were none that [`dispatch`] knows.
    pub fn run(self, environment: &Environment) -> Outcome {
        Ok(run(environment, &self.name))
    }
}

/// Runs the verb if that is what the arguments (with the program's own name) ask for in Nix's own
/// words. Everything else about the command line is left out then.
pub fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, name, stdio, ..] = args else {
        return None;
    };
    if verb != "connect" || stdio != "--stdio" {
        return None;
    }
    let name = name.to_str()?;
    Some(match Environment::read() {
        Ok(environment) => run(&environment, name).into(),
        Err(error) => {
            tell(ERROR, &error.chain().join(": "));
            error.exit().into()
        }
    })
}

fn run(environment: &Environment, name: &str) -> Exit {
    match connect(environment, name) {
        Ok(()) => Exit::Passed,
        Err(error) => {
            tell(ERROR, &error.chain().join(": "));
            error.exit()
        }
    }
}

fn connect(environment: &Environment, name: &str) -> Result<(), CliError> {
    // A service that we start must not hold what Nix waits for the end of. Where that cannot be had,
    // there is nothing else to do.
    drop(machinist_sys::descriptors::keep_from_children());
    let state = State::find(&environment::builders()?, name).map_err(CliError::nothing_selected)?;
    let launch = launch(environment, &state);
    let mut client = Client::connect_or_launch(&state, &launch).map_err(CliError::machinery)?;
    let mut note = |text: &str| tell(INFO, text);
    match client.ask(&Asked::Connect, &mut note) {
        Ok(Said::Joined) => {}
        Ok(_) => return Err(CliError::machinery("its service did not join us")),
        Err(error) => return Err(CliError::machinery(error)),
    }
    // How a connection ends Nix sees for itself.
    drop(client.carry());
    Ok(())
}

/// Says it so that it reaches the user.
fn tell(level: u8, text: &str) {
    drop(std::io::stderr().write_all(nix_message(level, text).as_bytes()));
}
