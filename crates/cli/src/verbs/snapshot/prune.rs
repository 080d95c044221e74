//! `machinist snapshot prune`

use std::time::Duration;

use clap::Args;
use machinist_lab::Bytes;
use serde::Serialize;

use super::Shown;
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::parse;
use crate::verbs::{Format, FormatArgs};
use crate::{human, ui};

/// Throw away snapshots, but none that is in use
///
/// The next start of a machine whose snapshot is gone boots, and saves it anew. Without being asked,
/// machinist keeps to a limit (MACHINIST_SNAPSHOT_LIMIT, 20G): what was used longest ago goes first.
#[derive(Debug, Args)]
pub struct Prune {
    /// What has not been used for this long, such as `7d`
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "30d")]
    unused_for: Duration,
    /// Also what was used longest ago, until the rest takes at most this much
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

#[derive(Serialize)]
struct Pruned {
    removed: Vec<Shown>,
    in_use: Vec<Shown>,
    /// Bytes.
    freed: u64,
}

impl Prune {
    /// Throws them away.
    pub fn run(self, environment: &Environment) -> Outcome {
        let prune = machinist_image::Prune {
            all: self.all,
            unused_for: Some(self.unused_for),
            to_size: self.to_size.map(|size| size.0),
            dry_run: self.dry_run,
        };
        let store = super::store(environment)?;
        let freed = store.map_or_else(|| Ok(Default::default()), |store| store.prune(&prune));
        let freed = freed.map_err(super::failed)?;
        let pruned = Pruned {
            removed: freed.removed.iter().map(Shown::of).collect(),
            in_use: freed.in_use.iter().map(Shown::of).collect(),
            freed: freed.bytes,
        };
        if self.format.format == Format::Json {
            ui::json(&pruned);
            return Ok(Exit::Passed);
        }
        let line =
            |shown: &Shown| format!("{} at {} of {}", shown.machine, shown.ready, shown.image);
        for shown in &pruned.removed {
            ui::data(format_args!(
                "{}  {}",
                human::size(shown.allocated),
                line(shown)
            ));
        }
        let would = if self.dry_run { "would free" } else { "freed" };
        ui::status(format_args!("{would} {}", human::size(pruned.freed)));
        for shown in &pruned.in_use {
            ui::status(format_args!("in use, so it stays: {}", line(shown)));
        }
        Ok(Exit::Passed)
    }
}
