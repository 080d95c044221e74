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
use crate::table;

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

/// The cache, to be looked at: nothing is built with it, so it needs no agent.
fn store(environment: &Environment) -> Result<Store, CliError> {
    Store::open(&environment.images, &[]).map_err(failed)
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
                size(entry.size),
                age(entry),
                entry.name.clone(),
            ]
        })
        .collect();
    table::table(["ID", "KIND", "SIZE", "LAST USED", "NAME"], &rows)
}

/// A size for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}

fn age(entry: &Entry) -> String {
    if entry.in_use {
        return "in use".to_owned();
    }
    let seconds = entry.last_used.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..120 => "now".to_owned(),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(240 << 20), "240 MiB");
        assert_eq!(size(5 << 40), "5120 GiB");
    }
}
