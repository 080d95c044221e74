//! `machinist builder ssh`

use clap::Args;
use machinist_builder::{Asked, Keys, KeysError};

use super::{find, ours, refused, service};
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Let a builder be reached by SSH, too, and show what `ssh` has to be told
///
/// Nix needs none of this. Keys are made for this builder alone; its service listens on 127.0.0.1.
#[derive(Debug, Args)]
pub struct Ssh {
    /// The builder
    name: String,
    /// The port: any that is free, and the same from then on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Show the machine line by which Nix would reach it by SSH
    #[arg(long)]
    machine_line: bool,
}

impl Ssh {
    /// Shows it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = find(&self.name)?;
        let config = ours(&state, "SSH")?;
        let keys = Keys::make(&state, self.port).map_err(|error| match error {
            KeysError::Port { .. } => CliError::usage(error),
            error => CliError::machinery(error),
        })?;
        let mut client = service(environment, &state)?;
        client
            .ask(&Asked::Ssh, &mut |text| ui::status(text))
            .map_err(refused)?;
        if !self.machine_line {
            ui::data(keys.config().trim_end());
            return Ok(Exit::Passed);
        }
        let features = super::status::features(&state);
        let line = keys.machine_line(&config.systems(), config.max_jobs, &features);
        ui::data(line.map_err(CliError::machinery)?);
        Ok(Exit::Passed)
    }
}
