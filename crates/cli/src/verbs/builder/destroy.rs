//! `machinist builder destroy`

use std::io::{BufRead, IsTerminal};

use clap::Args;
use machinist_builder::registration;

use super::{failed, find};
use crate::Outcome;
use crate::environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Remove a builder with all that it has built
///
/// Nix's configuration is left as it is: `machinist builder unregister` first.
#[derive(Debug, Args)]
pub struct Destroy {
    /// The builder
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Destroy {
    /// Removes it.
    pub fn run(self) -> Outcome {
        let state = find(&self.name)?;
        if !self.yes && !confirmed(&self.name)? {
            ui::status("nothing was removed");
            return Ok(Exit::Interrupted);
        }
        state.destroy().map_err(|error| {
            let runs = matches!(error, machinist_builder::StateError::Runs { .. });
            let error = failed(error);
            if runs {
                error.hint(format!("`machinist builder stop {}` first", self.name))
            } else {
                error
            }
        })?;
        ui::status(format_args!("{}: removed", self.name));
        let known = registration::registered(&environment::nix_host(), None);
        if known.is_ok_and(|known| known.contains(&self.name)) {
            ui::warning(format_args!(
                "Nix still looks for it: machinist builder unregister {}",
                self.name
            ));
        }
        Ok(Exit::Passed)
    }
}

fn confirmed(name: &str) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("nobody is there to be asked").hint("--yes removes it unasked"));
    }
    ui::status(format_args!(
        "Remove builder {name} with its store and all that was built there? [y/N]"
    ));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(CliError::machinery)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
