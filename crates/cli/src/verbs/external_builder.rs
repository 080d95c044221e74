//! `machinist external-builder`

mod run;
mod serve;
mod unit;

use clap::Subcommand;

use crate::Outcome;
use crate::environment::Environment;

/// Build for Nix as its external builder (Nix 2.32 and newer)
///
/// Nix gives all builds for a system to one program, and that program has them built in a builder's
/// machine. A machine line (`machinist builder register`) can do more; this is for where there can be
/// none.
#[derive(Debug, Subcommand)]
pub enum ExternalBuilder {
    Run(run::Run),
    Serve(serve::Serve),
    Unit(unit::Unit),
}

impl ExternalBuilder {
    /// Runs the verb. What Nix calls has another environment than people have.
    pub fn run(self) -> Outcome {
        match self {
            Self::Run(verb) => Ok(verb.run()),
            Self::Serve(verb) => verb.run(&Environment::read()?),
            Self::Unit(verb) => verb.run(&Environment::read()?),
        }
    }
}
