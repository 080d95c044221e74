//! `machinist image show`

use clap::Args;

use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;
use crate::verbs::{Format, FormatArgs};

/// Show one thing of the cache
#[derive(Debug, Args)]
pub struct Show {
    /// Its name, or the beginning of its id
    id: String,
    #[command(flatten)]
    format: FormatArgs,
}

impl Show {
    /// Shows it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let store = super::store(environment)?;
        let found = store.map_or(Ok(Vec::new()), |store| store.show(&self.id));
        let found = found.map_err(super::failed)?;
        if found.is_empty() {
            let message = format!("nothing in the cache is called {:?}", self.id);
            return Err(CliError::nothing_selected(message)
                .hint("`machinist image list` lists what is there"));
        }
        match self.format.format {
            Format::Json => ui::json(&found),
            Format::Text => ui::data(super::entries(&found)),
        }
        Ok(Exit::Passed)
    }
}
