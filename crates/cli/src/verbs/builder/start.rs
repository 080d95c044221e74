//! `machinist builder start`

use clap::Args;
use machinist_builder::{Asked, Said};

use super::{find, refused, service};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::ui;

/// Start a builder's machine now, instead of with the first build
///
/// It stops by itself as ever: when nobody has used it for its idle timeout.
#[derive(Debug, Args)]
pub struct Start {
    /// The builder
    name: String,
}

impl Start {
    /// Starts it, and waits until it could build.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = find(&self.name)?;
        let mut client = service(environment, &state)?;
        let mut note = |text: &str| ui::status(text);
        let said = client.ask(&Asked::Hold, &mut note).map_err(refused)?;
        if matches!(said, Said::Held { ran: true, .. }) {
            ui::status(format_args!("{}: it runs already", self.name));
        } else {
            ui::status(format_args!("{}: up", self.name));
        }
        Ok(Exit::Passed)
    }
}
