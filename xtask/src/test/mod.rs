//! `cargo xtask test`: every check that there is, stage by stage, all failures reported.
//!
//! The last line is `N passed, N failed` (and `, N skipped`), over all tests of all stages. It
//! needs no terminal and reads nothing.

mod binaries;
mod examples;
mod licences;
mod lints;
mod python;
mod structure;
mod tally;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use binaries::{Binaries, Group};
pub use tally::Tally;

/// The stages, in the order in which they run: what fails soonest comes first. Clippy and the
/// documentation run beside real machines, where these are asked for, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// System packages.
    Setup,
    /// Formatting.
    Fmt,
    /// Which crate may know which, and how long a file may be.
    Structure,
    /// Licences of all dependencies.
    Licences,
    /// Clippy, warnings are errors.
    Clippy,
    /// The API documentation builds without a warning.
    Doc,
    /// Unit and property tests of every crate.
    Unit,
    /// Generated files are up to date.
    Generated,
    /// Tests of the Python package.
    Python,
    /// The program without a machine: arguments, messages, exit codes.
    Cli,
    /// Tests against real machines.
    Machines,
    /// The Nix code, and machinist in the sandbox of a real Nix.
    Nix,
    /// The examples, each as a user runs it.
    Examples,
}

/// Runs `stages`, or all.
pub fn run(stages: &[Stage]) -> Result<ExitCode> {
    let stages = if stages.is_empty() {
        Stage::value_variants()
    } else {
        stages
    };
    let begin = Instant::now();
    // Real machines mostly wait, or keep one processor busy: what only compiles runs beside them.
    let real = stages.iter().position(|it| *it == Stage::Machines);
    let (beside, mut rest): (Vec<Stage>, Vec<Stage>) = stages
        .iter()
        .partition(|it| real.is_some() && matches!(it, Stage::Clippy | Stage::Doc));
    let after = rest.iter().position(|it| *it == Stage::Machines);
    let after = rest.split_off(after.unwrap_or(rest.len()));
    let mut binaries = Binaries::default();
    let mut ran: Vec<Ran> = Vec::new();
    ran.extend(rest.into_iter().map(|stage| stage.ran(&mut binaries)));
    let aside = thread::spawn(move || {
        let all = beside.into_iter();
        all.map(|stage| stage.ran(&mut Binaries::default()))
            .collect::<Vec<_>>()
    });
    ran.extend(after.into_iter().map(|stage| stage.ran(&mut binaries)));
    let aside = aside.join();
    ran.extend(aside.map_err(|_| anyhow!("clippy or doc: a panic"))?);
    println!("stage       seconds");
    let mut all = Tally::default();
    for Ran {
        name,
        seconds,
        tally,
    } in ran
    {
        println!("{name:<11} {seconds:>7.1}  {}", tally.counts());
        all.add(tally);
    }
    println!("{:<11} {:>7.1}\n", "total", begin.elapsed().as_secs_f64());
    Ok(all.report())
}

/// A stage that has run.
struct Ran {
    name: String,
    seconds: f64,
    tally: Tally,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Runs it, and tells of it.
    fn ran(self, binaries: &mut Binaries) -> Ran {
        let name = self.name();
        println!("== {name}");
        let begin = Instant::now();
        let mut tally = Tally::default();
        if let Err(error) = self.run(&mut tally, binaries) {
            println!("{error:#}");
            tally.fail(format!("{name}: could not be finished"));
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!("== {name}: {} ({seconds:.1} s)\n", tally.counts());
        Ran {
            name,
            seconds,
            tally,
        }
    }

    fn run(self, tally: &mut Tally, binaries: &mut Binaries) -> Result<()> {
        match self {
            Self::Setup => {
                crate::setup::run(false)?;
                tally.pass();
                Ok(())
            }
            Self::Fmt => lints::fmt(tally),
            Self::Structure => structure::check(tally),
            Self::Licences => licences::check(tally),
            Self::Clippy => lints::clippy(tally),
            Self::Doc => lints::doc(tally),
            Self::Unit => {
                binaries.run(Group::Unit, tally)?;
                binaries::doc_tests(tally)
            }
            Self::Generated => crate::generate::check(tally),
            Self::Python => python::run(tally),
            Self::Cli => binaries.run(Group::Cli, tally),
            Self::Machines => binaries.run(Group::Machines, tally),
            Self::Nix => binaries.run(Group::Nix, tally),
            Self::Examples => examples::run(tally),
        }
    }
}
