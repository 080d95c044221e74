//! `machinist image`

mod build;
mod list;
mod prune;
mod show;

use clap::Subcommand;
use machinist_image::{Entry, ImageError, Store};

use crate::Outcome;
use crate::environment::Environment;
use crate::error::{CliError, Kind};
use crate::{human, table};

/// Build images ahead of time, and look after the cache
#[derive(Debug, Subcommand)]
pub enum Image {
    Build(build::Build),
    List(list::List),
    Show(show::Show),
    Prune(prune::Prune),
}

impl Image {
    /// Does it.
    pub fn run(self, environment: &Environment) -> Outcome {
        match self {
            Self::Build(verb) => verb.run(environment),
            Self::List(verb) => verb.run(environment),
            Self::Show(verb) => verb.run(environment),
            Self::Prune(verb) => verb.run(environment),
        }
    }
}

/// The cache, to be looked at: nothing is built with it, so it needs no agent. None, where nothing
/// has been built yet: who only looks makes nothing.
fn store(environment: &Environment) -> Result<Option<Store>, CliError> {
    if !environment.cache.look()? || !environment.images.is_dir() {
        return Ok(None);
    }
    Store::open(&environment.images, &[])
        .map(Some)
        .map_err(failed)
}

fn failed(error: ImageError) -> CliError {
    let hint = error.hint();
    let failed = CliError::new(Kind::Machinery, error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// What is in the cache, as a table.
fn entries(entries: &[Entry]) -> String {
    let rows: Vec<[String; 5]> = entries
        .iter()
        .map(|entry| {
            [
                entry.id.as_str().chars().take(12).collect(),
                format!("{:?}", entry.kind).to_lowercase(),
                human::size(entry.size),
                human::age(entry.last_used, entry.in_use),
                entry.name.clone(),
            ]
        })
        .collect();
    table::table(["ID", "KIND", "SIZE", "LAST USED", "NAME"], &rows)
}
