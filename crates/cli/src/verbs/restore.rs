//! `machinist restore`

use clap::Args;
use machinist_session::protocol::{Verb, WentBack};

use super::block_on;
use super::checkpoint::milliseconds;
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::{sessions, ui};

/// Take a live session back to a checkpoint
///
/// Whatever its machines do: what was begun since is gone, also shells that are open in them. It can
/// be gone back to as often as one likes.
#[derive(Debug, Args)]
pub struct Restore {
    /// The session, or the beginning of its id; may be left out where there is only one
    #[arg(short, long)]
    session: Option<String>,
    /// The checkpoint
    name: String,
}

impl Restore {
    /// Goes back.
    pub fn run(self, environment: &Environment) -> Outcome {
        let found = sessions::find(environment, self.session.as_deref())?;
        block_on(async {
            let mut client = sessions::connect(&found).await?;
            let back = Verb::Restore { name: self.name };
            let back: WentBack = client.call(back, |_| {}).await?;
            ui::status(format_args!(
                "{}: back at {} after {}",
                found.card.session,
                back.name,
                milliseconds(back.seconds)
            ));
            Ok(Exit::Passed)
        })
    }
}
