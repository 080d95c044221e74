//! `machinist checkpoint`

use clap::Args;
use machinist_session::protocol::{CheckpointStatus, Verb};

use super::{Format, FormatArgs, block_on};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::{sessions, table, ui};

/// Take a checkpoint of a live session, to go back to with `machinist restore`
///
/// All machines are saved at one moment, with their disks and what is on its way between them; they
/// stand still for some hundred milliseconds, and go on. Prints the checkpoint's name. It is gone
/// when the session ends.
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// The session, or the beginning of its id; may be left out where there is only one
    #[arg(short, long)]
    session: Option<String>,
    /// Its name; one of the same name is replaced. Left out: a new one
    #[arg(conflicts_with = "list")]
    name: Option<String>,
    /// Forget the checkpoint NAME instead, and remove its files
    #[arg(long, requires = "name")]
    drop: bool,
    /// List the session's checkpoints instead
    #[arg(short, long)]
    list: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl Checkpoint {
    /// Takes it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let found = sessions::find(environment, self.session.as_deref())?;
        block_on(async {
            let mut client = sessions::connect(&found).await?;
            if self.list {
                let all: Vec<CheckpointStatus> = client.call(Verb::Checkpoints, |_| {}).await?;
                self.show_all(&all);
                return Ok(Exit::Passed);
            }
            if let (true, Some(name)) = (self.drop, self.name.clone()) {
                client.ask(Verb::DropCheckpoint { name }).await?;
                return Ok(Exit::Passed);
            }
            let take = Verb::Checkpoint {
                name: self.name.clone(),
            };
            let taken: CheckpointStatus = client.call(take, |_| {}).await?;
            match self.format.format {
                Format::Text => {
                    ui::data(&taken.name);
                    ui::status(format_args!(
                        "{}: the machines stood still for {}",
                        found.card.session,
                        milliseconds(taken.still)
                    ));
                }
                Format::Json => ui::json(&taken),
            }
            Ok(Exit::Passed)
        })
    }

    fn show_all(&self, all: &[CheckpointStatus]) {
        if self.format.format == Format::Json {
            return ui::json(&all);
        }
        let row = |one: &CheckpointStatus| {
            [
                one.name.clone(),
                milliseconds(one.still),
                one.machines.join(" "),
            ]
        };
        let rows: Vec<_> = all.iter().map(row).collect();
        ui::data(table::table(
            ["CHECKPOINT", "STOOD STILL", "MACHINES"],
            &rows,
        ));
    }
}

/// Seconds as whole milliseconds.
pub fn milliseconds(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}
