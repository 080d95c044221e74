//! The machinist program: one file for each verb.
//!
//! This is the only crate that prints, exits, or reads the environment. A verb returns what it has
//! to say as [`CliError`] or as an exit code of [`exit`]; everything else is here.

#![forbid(unsafe_code)]

mod cache;
mod containers;
mod driver;
mod environment;
mod error;
mod exit;
mod human;
mod interrupt;
mod lab_file;
mod parse;
mod preflight;
mod progress;
mod prompt;
mod sessions;
mod starts;
mod table;
mod terminal;
mod ui;
mod verbs;
mod warnings;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::verbs::Verb;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The helpers that the engine starts are this program again, under hidden verbs.
    let helper = machinist_session::guard::dispatch(&args);
    if let Some(code) = helper.or_else(|| machinist_session::dial::dispatch(&args)) {
        return code;
    }
    let words: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(code) = machinist_machine::helper::dispatch(&words) {
        return code;
    }
    if let Some(code) = verbs::connect::dispatch(&args) {
        return code;
    }
    warnings::show();
    if let Some(exit) = driver::dispatch(&args) {
        return exit.into();
    }
    run(args).into()
}

fn run(args: Vec<OsString>) -> Exit {
    let cli = match verbs::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Passed
            };
            // A closed pipe is the reader's business.
            drop(error.print());
            return exit;
        }
    };
    let outcome = match cli.verb {
        // They have an environment of their own.
        Verb::NixosTestDriver(verb) => verb.run(),
        Verb::ExternalBuilder(verb) => verb.run(),
        verb => Environment::read().and_then(|environment| verb.run(&environment)),
    };
    let outcome = match (outcome, ui::lost()) {
        (Ok(Exit::Passed), Some(lost)) => Err(lost),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(exit) => exit,
        Err(error) => {
            ui::error(&error);
            error.exit()
        }
    }
}

/// What a verb comes to.
type Outcome = Result<Exit, CliError>;
