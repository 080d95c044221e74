//! `machinist builder`

mod create;
mod destroy;
mod logs;
mod register;
mod serve;
mod shell;
mod ssh;
mod start;
mod status;
mod stop;
mod unit;
mod unregister;

pub use serve::inherited;
pub use unit::Init;

use clap::Subcommand;
use machinist_builder::{Client, Config, ConnectError, Launch, State, StateError};

use crate::Outcome;
use crate::environment::{self, Environment};
use crate::error::CliError;

/// Look after builders: machines that build for Nix
///
/// A builder is created once, starts when Nix's daemon first connects to it, and stops when nobody
/// has used it for a while; what it has built stays.
#[derive(Debug, Subcommand)]
pub enum Builder {
    Create(create::Create),
    Start(start::Start),
    Stop(stop::Stop),
    Status(status::Status),
    Shell(shell::Shell),
    Ssh(ssh::Ssh),
    Logs(logs::Logs),
    Unit(unit::Unit),
    Register(register::Register),
    Unregister(unregister::Unregister),
    Destroy(destroy::Destroy),
    #[command(hide = true)]
    Serve(serve::Serve),
}

impl Builder {
    /// Does it.
    pub fn run(self, environment: &Environment) -> Outcome {
        match self {
            Self::Create(verb) => verb.run(environment),
            Self::Start(verb) => verb.run(environment),
            Self::Stop(verb) => verb.run(),
            Self::Status(verb) => verb.run(environment),
            Self::Shell(verb) => verb.run(environment),
            Self::Ssh(verb) => verb.run(environment),
            Self::Logs(verb) => verb.run(),
            Self::Unit(verb) => verb.run(environment),
            Self::Register(verb) => verb.run(environment),
            Self::Unregister(verb) => verb.run(),
            Self::Destroy(verb) => verb.run(),
            Self::Serve(verb) => verb.run(environment),
        }
    }
}

/// The builder of that name.
pub fn find(name: &str) -> Result<State, CliError> {
    State::find(&environment::builders()?, name).map_err(unknown)
}

fn unknown(error: StateError) -> CliError {
    match error {
        StateError::Unknown { .. } => CliError::nothing_selected(error)
            .hint("`machinist builder status` shows all, `machinist builder create` makes one"),
        error => failed(error),
    }
}

fn failed(error: StateError) -> CliError {
    match error {
        StateError::Exists { .. } | StateError::Runs { .. } | StateError::TooLong(_) => {
            CliError::usage(error)
        }
        error => CliError::machinery(error),
    }
}

/// What the builder is, for what needs machinist's own system in its machine.
pub fn ours(state: &State, what: &str) -> Result<Config, CliError> {
    let config = state.config().map_err(failed)?;
    if config.system.is_none() {
        return Ok(config);
    }
    let name = &config.name;
    let text =
        format!("{what} needs machinist's own system in the machine, and {name} has another");
    Err(CliError::usage(text).hint(format!(
        "a machine line works (`machinist builder register {name}`), or a builder without --system"
    )))
}

fn refused(error: ConnectError) -> CliError {
    CliError::machinery(error)
}

/// How its service is run by hand.
pub fn launch(environment: &Environment, state: &State) -> Launch {
    Launch {
        exe: environment.exe.clone(),
        args: vec![
            "builder".into(),
            "serve".into(),
            state.path().into(),
            "--detach".into(),
        ],
    }
}

/// The service of a builder, which is started if needed.
fn service(environment: &Environment, state: &State) -> Result<Client, CliError> {
    let connected = Client::connect_or_launch(state, &launch(environment, state));
    connected.map_err(refused)
}
