//! `machinist image list`

use clap::Args;

use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::ui;
use crate::verbs::{Format, FormatArgs};

/// List what is in the cache
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    format: FormatArgs,
}

impl List {
    /// Lists it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let store = super::store(environment)?;
        let entries = store.map_or(Ok(Vec::new()), |store| store.list());
        let entries = entries.map_err(super::failed)?;
        match self.format.format {
            Format::Json => ui::json(&entries),
            Format::Text => ui::data(super::entries(&entries)),
        }
        Ok(Exit::Passed)
    }
}
