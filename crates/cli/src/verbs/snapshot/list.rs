//! `machinist snapshot list`

use clap::Args;

use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::ui;
use crate::verbs::{Format, FormatArgs};

/// List the snapshots in the cache, the last used first
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    format: FormatArgs,
}

impl List {
    /// Lists them.
    pub fn run(self, environment: &Environment) -> Outcome {
        let store = super::store(environment)?;
        let infos = store.map_or(Ok(Vec::new()), |store| store.list());
        let infos = infos.map_err(super::failed)?;
        match self.format.format {
            Format::Json => {
                let shown: Vec<_> = infos.iter().map(super::Shown::of).collect();
                ui::json(&shown);
            }
            Format::Text => ui::data(super::entries(&infos)),
        }
        Ok(Exit::Passed)
    }
}
