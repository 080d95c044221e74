//! The program under the names that NixOS tests call it by: `nixos-test-driver`, which runs one test
//! whose machines are run by start scripts, and `generate-driver-symbols`.

mod argparse;
mod breakpoint;
mod call;
mod config;
mod job;
mod machines;
mod options;
mod shown;
mod symbols;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use machinist_events::Outcome as TestOutcome;
use machinist_session::{Accel, Engine, run_driver};

use crate::Outcome;
use crate::environment::{self, DriverEnvironment, Environment};
use crate::error::{CliError, Kind};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::verbs::block_on;
use crate::{progress, ui};

pub use call::PROGRAM;

/// Every failure of a test or of ours: NixOS knows no other.
const FAILED: Exit = Exit::Command(1);

/// What the program was called as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Driver,
    Symbols,
}

/// Runs the program that the arguments (the first is what we were called as) name, if that is one of
/// NixOS's.
pub fn dispatch(args: &[OsString]) -> Option<Exit> {
    match name(args.first()?)? {
        Name::Driver => Some(run(args[1..].to_vec())),
        Name::Symbols => Some(end(symbols::write())),
    }
}

fn name(called: &OsStr) -> Option<Name> {
    let file = Path::new(called).file_name()?.to_str()?;
    // Nix's wrappers put programs aside under such names.
    let file = match file.strip_prefix('.') {
        Some(wrapped) => wrapped.strip_suffix("-wrapped")?,
        None => file,
    };
    match file {
        PROGRAM => Some(Name::Driver),
        symbols::PROGRAM => Some(Name::Symbols),
        _ => None,
    }
}

/// Runs a test, with these arguments.
pub fn run(args: Vec<OsString>) -> Exit {
    match call::read(args, environment::var) {
        Ok(call::Asked::Help) => {
            ui::raw_data(call::help().as_bytes());
            Exit::Passed
        }
        Ok(call::Asked::Run(call)) => {
            end(DriverEnvironment::read().and_then(|it| test(*call, &it)))
        }
        Err(message) => {
            ui::status(format_args!("{}{PROGRAM}: error: {message}", call::usage()));
            Exit::Usage
        }
    }
}

/// Tells an error, and gives the exit code that NixOS's driver has.
fn end(outcome: Outcome) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(error) => {
            ui::error(&error);
            match error.kind() {
                Kind::Usage => Exit::Usage,
                Kind::Interrupted => Exit::Interrupted,
                _ => FAILED,
            }
        }
    }
}

fn test(call: call::Call, environment: &DriverEnvironment) -> Outcome {
    let job = job::job(&call, environment)?;
    if !job.containers.is_empty() {
        become_root(&environment.common)?;
    }
    block_on(async {
        let interrupt = if job.interactive {
            Interrupt::listen_but_to_keys()?
        } else {
            Interrupt::listen()?
        };
        let shown = shown::Shown::begin(&call, &job, environment)?;
        if !call.keep_state {
            shown.say("Machine state will be reset. To keep it, pass --keep-machine-state");
        }
        if let Some(limit) = job.global_timeout.filter(|_| !job.interactive) {
            let seconds = limit.as_secs_f64();
            shown.say(&format!(
                "Test will time out and terminate in {seconds} seconds"
            ));
        }
        let mut settings = environment.common.settings(Accel::Auto);
        // A start script is somebody else's: it boots unless somebody asks for more.
        settings.warm = job.warm;
        let engine = Engine::open(settings, shown.sink()).await?;
        progress::swept(engine.swept());
        let result = run_driver(&engine, job, &interrupt.cancel, &interrupt.kill).await;
        shown.finish()?;
        Ok(match result.outcome {
            TestOutcome::Passed => Exit::Passed,
            TestOutcome::Interrupted => Exit::Interrupted,
            TestOutcome::Failed | TestOutcome::Error | TestOutcome::TimedOut => FAILED,
        })
    })
}

/// Containers of an ordinary user run in a user namespace. What root lacks, its containers tell.
fn become_root(environment: &Environment) -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let containers = environment.containers_at_all();
    match &containers.limits.any {
        None => Ok(()),
        Some(why) => {
            let hints = containers.remedies.iter().cloned();
            Err(hints.fold(CliError::host(why), CliError::hint))
        }
    }
}

/// Mistakes in what a call names, all at once.
fn mistakes(mistakes: &[String]) -> CliError {
    CliError::new(Kind::Lab, mistakes.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_know_our_names() {
        for (called, wanted) in [
            ("nixos-test-driver", Some(Name::Driver)),
            ("/nix/store/x/bin/nixos-test-driver", Some(Name::Driver)),
            (
                "/nix/store/x/bin/.nixos-test-driver-wrapped",
                Some(Name::Driver),
            ),
            ("./generate-driver-symbols", Some(Name::Symbols)),
            ("machinist", None),
            (".nixos-test-driver", None),
            ("", None),
        ] {
            assert_eq!(name(OsStr::new(called)), wanted, "{called}");
        }
    }
}
