//! `machinist down`

use clap::Args;
use machinist_session::protocol::Verb;

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::{sessions, ui};

/// End a session: stop its machines, and remove everything of it
#[derive(Debug, Args)]
pub struct Down {
    /// The session, or the beginning of its id; may be left out where there is only one
    session: Option<String>,
    /// All live sessions
    #[arg(short, long, conflicts_with = "session")]
    all: bool,
}

impl Down {
    /// Ends it, and waits until it has ended.
    pub fn run(self, environment: &Environment) -> Outcome {
        let wanted = if self.all {
            sessions::all(environment)?
        } else {
            vec![sessions::find(environment, self.session.as_deref())?]
        };
        if wanted.is_empty() {
            return Err(CliError::nothing_selected("no session is live"));
        }
        block_on(async {
            for found in wanted {
                let mut client = sessions::connect(&found).await?;
                client.ask(Verb::Down).await?;
                sessions::ended(&found).await?;
                ui::status(format_args!("{}: ended", found.card.session));
            }
            Ok(Exit::Passed)
        })
    }
}
