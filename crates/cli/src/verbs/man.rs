//! `machinist man`

use clap::Args;

use crate::error::CliError;
use crate::exit::Exit;
use crate::{Outcome, ui};

/// Print the manual page, or that of a verb
///
/// To read it: `machinist man | man -l -`.
#[derive(Debug, Args)]
pub struct Man {
    /// A verb, such as `test`
    verb: Option<String>,
}

impl Man {
    /// Prints it.
    pub fn run(self) -> Outcome {
        // The plain command: groups are a matter of `--help`, man pages have sections of their own.
        let command = <super::Cli as clap::CommandFactory>::command();
        let page = match &self.verb {
            None => command.after_help(crate::exit::HELP),
            Some(verb) => command
                .find_subcommand(verb)
                .ok_or_else(|| CliError::usage(format!("there is no verb {verb:?}")))?
                .clone()
                .display_name(format!("machinist-{verb}"))
                .bin_name(format!("machinist {verb}")),
        };
        let mut text = Vec::new();
        clap_mangen::Man::new(page)
            .render(&mut text)
            .map_err(CliError::machinery)?;
        ui::raw_data(&text);
        Ok(Exit::Passed)
    }
}
