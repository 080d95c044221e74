//! The verbs, one file each, and the help that groups them.

mod attach;
mod builder;
mod check;
mod checkpoint;
mod completions;
pub mod connect;
mod cp;
mod doctor;
mod down;
mod external_builder;
mod image;
mod list;
mod logs;
mod man;
mod nixos_test_driver;
mod one_machine;
mod ps;
mod restore;
mod run;
mod schema;
mod shell;
mod show;
mod snapshot;
mod test;
pub mod up;

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::environment::Environment;
use crate::error::CliError;
use crate::{Outcome, exit};

/// Runs Linux machines: boots them as virtual machines or containers, joins them by networks, and
/// drives them with tests.
#[derive(Debug, Parser)]
#[command(name = "machinist", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do. Every verb is in one group of [`GROUPS`].
#[derive(Debug, Subcommand)]
pub enum Verb {
    Test(test::Test),
    List(list::List),
    Show(show::Show),
    Check(check::Check),
    NixosTestDriver(nixos_test_driver::NixosTestDriver),
    Run(run::Run),
    Shell(shell::Shell),
    Up(up::Up),
    Down(down::Down),
    Ps(ps::Ps),
    Logs(logs::Logs),
    Attach(attach::Attach),
    Cp(cp::Cp),
    Checkpoint(checkpoint::Checkpoint),
    Restore(restore::Restore),
    #[command(subcommand)]
    Builder(builder::Builder),
    Connect(connect::Connect),
    #[command(subcommand)]
    ExternalBuilder(external_builder::ExternalBuilder),
    #[command(subcommand)]
    Image(image::Image),
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    Doctor(doctor::Doctor),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The groups of `machinist --help`.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Test",
        &["test", "list", "show", "check", "nixos-test-driver"],
    ),
    ("One machine", &["run", "shell"]),
    (
        "Labs",
        &[
            "up",
            "down",
            "ps",
            "logs",
            "attach",
            "cp",
            "checkpoint",
            "restore",
        ],
    ),
    ("Builders", &["builder", "connect", "external-builder"]),
    (
        "Set-up",
        &[
            "doctor",
            "image",
            "snapshot",
            "schema",
            "completions",
            "man",
        ],
    ),
];

/// How a verb that shows something shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The option of every verb that shows something.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl Verb {
    /// Does it.
    pub fn run(self, environment: &Environment) -> Outcome {
        match self {
            Self::Test(verb) => verb.run(environment),
            Self::List(verb) => verb.run(environment),
            Self::Show(verb) => verb.run(environment),
            Self::Check(verb) => verb.run(environment),
            Self::NixosTestDriver(verb) => verb.run(),
            Self::Run(verb) => verb.run(environment),
            Self::Shell(verb) => verb.run(environment),
            Self::Up(verb) => verb.run(environment),
            Self::Down(verb) => verb.run(environment),
            Self::Ps(verb) => verb.run(environment),
            Self::Logs(verb) => verb.run(environment),
            Self::Attach(verb) => verb.run(environment),
            Self::Cp(verb) => verb.run(environment),
            Self::Checkpoint(verb) => verb.run(environment),
            Self::Restore(verb) => verb.run(environment),
            Self::Builder(verb) => verb.run(environment),
            Self::Connect(verb) => verb.run(environment),
            Self::ExternalBuilder(verb) => verb.run(),
            Self::Image(verb) => verb.run(environment),
            Self::Snapshot(verb) => verb.run(environment),
            Self::Doctor(verb) => verb.run(environment),
            Self::Schema(verb) => verb.run(),
            Self::Completions(verb) => verb.run(),
            Self::Man(verb) => verb.run(),
        }
    }
}

/// Reads the command line.
pub fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// The command line, with the verbs grouped in its help.
fn command() -> Command {
    let command = Cli::command();
    let verbs = grouped(&command);
    command
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}\nOptions:\n{{options}}{{after-help}}"
        ))
        .after_help(exit::HELP)
        .subcommand_value_name("VERB")
}

/// The verbs with the first sentence of their help, under the names of their groups.
fn grouped(command: &Command) -> String {
    let mut text = String::new();
    for (group, verbs) in GROUPS {
        // Writing to a string cannot fail.
        _ = writeln!(text, "{group}:");
        for name in verbs {
            let about = command
                .find_subcommand(name)
                .and_then(Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            _ = writeln!(text, "  {name:<18} {about}");
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// Runs what needs the engine or a session.
pub fn block_on<F: Future<Output = Outcome>>(future: F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::machinery(error).context("cannot start the runtime"))?;
    let outcome = runtime.block_on(future);
    // A thread that waits for our standard input would keep the runtime from ending.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, verbs)| verbs.to_vec())
            .collect();
        let command = command();
        let mut known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }
}
