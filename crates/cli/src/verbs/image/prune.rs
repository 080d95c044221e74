//! `machinist image prune`

use std::time::Duration;

use clap::Args;
use machinist_image::Pruned;
use machinist_lab::Bytes;

use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::parse;
use crate::verbs::{Format, FormatArgs};
use crate::{human, ui};

/// Throw away what is in the cache, but nothing that is in use
#[derive(Debug, Args)]
pub struct Prune {
    /// What has not been used for this long, such as `7d`
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "30d")]
    unused_for: Duration,
    /// Also what was used longest ago, until the cache is at most this large
    #[arg(long, value_name = "SIZE", value_parser = parse::lab_value::<Bytes>)]
    to_size: Option<Bytes>,
    /// Everything
    #[arg(long, conflicts_with_all = ["unused_for", "to_size"])]
    all: bool,
    /// Only tell what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl Prune {
    /// Throws it away.
    pub fn run(self, environment: &Environment) -> Outcome {
        let prune = machinist_image::Prune {
            all: self.all,
            unused_for: Some(self.unused_for),
            to_size: self.to_size.map(|size| size.0),
            dry_run: self.dry_run,
        };
        let store = super::store(environment)?;
        let pruned = store.map_or(Ok(Pruned::default()), |store| store.prune(&prune));
        let pruned = pruned.map_err(super::failed)?;
        if self.format.format == Format::Json {
            ui::json(&pruned);
            return Ok(Exit::Passed);
        }
        for entry in &pruned.removed {
            ui::data(format_args!("{}  {}", human::size(entry.size), entry.name));
        }
        let would = if self.dry_run { "would free" } else { "freed" };
        ui::status(format_args!("{would} {}", human::size(pruned.freed)));
        for entry in &pruned.in_use {
            ui::status(format_args!("in use, so it stays: {}", entry.name));
        }
        Ok(Exit::Passed)
    }
}
