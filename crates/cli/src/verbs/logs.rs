//! `machinist logs`

use clap::Args;
use machinist_events::Event;
use machinist_session::ClientError;
use machinist_session::protocol::{Part, Verb};

use super::{Format, FormatArgs, block_on};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::progress::line;
use crate::{sessions, ui};

/// Show what happened in a live session: its event log, consoles included
#[derive(Debug, Args)]
pub struct Logs {
    /// The session: the beginning of its id, its test, a machine that only it has, whose events are
    /// shown then, or the path of its directory; may be left out where there is only one
    session: Option<String>,
    /// Only what happened to these machines
    machines: Vec<String>,
    /// Go on with what happens, until the session ends
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl Logs {
    /// Shows it.
    pub fn run(self, environment: &Environment) -> Outcome {
        block_on(async {
            let name = self.session.as_deref();
            let (found, meant) = sessions::find_by(environment, name).await?;
            let mut client = sessions::connect(&found).await?;
            let machines: Vec<String> = meant.into_iter().chain(self.machines).collect();
            for name in &machines {
                sessions::machine(&client, Some(name))?;
            }
            let verb = Verb::Events {
                past: true,
                follow: self.follow,
                machines,
            };
            let format = self.format.format;
            let show = |part| {
                if let Part::Event(event) = part {
                    print(&event, format);
                }
            };
            match client.call::<serde_json::Value>(verb, show).await {
                // The end of the session is what `--follow` waits for.
                Err(ClientError::Connection { .. }) if self.follow => Ok(Exit::Passed),
                answer => answer.map(|_| Exit::Passed).map_err(Into::into),
            }
        })
    }
}

fn print(event: &Event, format: Format) {
    match format {
        Format::Text => {
            if let Some(line) = line(event) {
                ui::data(line);
            }
        }
        Format::Json => ui::json_line(event),
    }
}
