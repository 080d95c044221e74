//! `cargo xtask test`: every check that there is, all failures reported.
//!
//! ```text
//! setup fmt structure licences      one after another: what fails soonest comes first
//! the build of all test programs
//! unit python generated cli machines nix examples     in two lanes, beside
//! the examples in the documentation, clippy, doc      which compile
//! ```
//!
//! What failed, and what it said, stands at the end. The last line is `N passed, N failed` (and
//! `, N skipped`), over all tests of all stages. It needs no terminal and reads nothing.

mod binaries;
mod examples;
mod lanes;
mod licences;
mod lints;
mod python;
mod structure;
mod tally;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use binaries::{Binaries, Group};
use lanes::{Job, Ran};
pub use tally::Tally;

/// The stages, as they are listed at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Stage {
    /// System packages.
    Setup,
    /// Formatting.
    Fmt,
    /// Which crate may know which, and how long a file may be.
    Structure,
    /// Licences of all dependencies.
    Licences,
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
    /// Clippy, warnings are errors.
    Clippy,
    /// The API documentation builds without a warning.
    Doc,
}

/// What takes longest, longest first: begun last, it would keep one lane busy when the other has
/// nothing left to do. All else is begun before (it is short, and what fails soonest comes first),
/// or after.
const LONGEST: [&str; 6] = [
    "tests/machines",
    "tests/builder",
    "tests/driver",
    "machine/real",
    "tests/nix",
    "image/real",
];

/// Runs `stages`, or all.
pub fn run(stages: &[Stage]) -> Result<ExitCode> {
    let stages = if stages.is_empty() {
        Stage::value_variants()
    } else {
        stages
    };
    let begin = Instant::now();
    let alone = stages.iter().copied().filter_map(Stage::alone);
    let mut ran: Vec<Ran> = alone.map(Job::run).collect();
    let mut binaries = Binaries::default();
    if stages.iter().any(|stage| stage.is_built()) {
        let built = lanes::timed(Stage::Unit, "build", |_| {
            binaries = Binaries::build()?;
            Ok(())
        });
        let is_ok = built.tally.is_ok();
        ran.push(built);
        if !is_ok {
            return Ok(report(ran, begin));
        }
    }
    let jobs = stages.iter().flat_map(|stage| stage.beside(&mut binaries));
    let mut jobs: Vec<Job> = jobs.collect();
    jobs.sort_by_key(|job| turn(job.name()));
    let cargo = stages.iter().copied().filter_map(Stage::of_cargo);
    ran.extend(lanes::run(jobs, cargo.collect()));
    Ok(report(ran, begin))
}

/// The place among [`LONGEST`] of the job that is so called. Those that are not there come before
/// them, real machines after.
fn turn(name: &str) -> usize {
    let place = LONGEST.iter().position(|it| *it == name);
    match place {
        Some(place) => 1 + place,
        None if name.ends_with("/real") || name == "examples" => 1 + LONGEST.len(),
        None => 0,
    }
}

/// Prints how long each stage took, and all that failed.
fn report(ran: Vec<Ran>, begin: Instant) -> ExitCode {
    let mut stages: BTreeMap<Stage, (f64, Tally)> = BTreeMap::new();
    for ran in ran {
        let (seconds, tally) = stages.entry(ran.stage).or_default();
        *seconds += ran.seconds;
        tally.add(ran.tally);
    }
    println!("\nstage       seconds, some of them at once");
    let mut all = Tally::default();
    for (stage, (seconds, tally)) in stages {
        println!("{:<11} {seconds:>7.1}  {}", stage.name(), tally.counts());
        all.add(tally);
    }
    println!("{:<11} {:>7.1}\n", "total", begin.elapsed().as_secs_f64());
    all.report()
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Whether it needs what is built.
    fn is_built(self) -> bool {
        let group = matches!(self, Self::Unit | Self::Cli | Self::Machines | Self::Nix);
        group || matches!(self, Self::Generated | Self::Examples)
    }

    /// What is to be done of it before anything is built.
    fn alone(self) -> Option<Job> {
        let check: fn(&mut Tally) -> Result<()> = match self {
            Self::Setup => |tally| {
                crate::setup::run(false)?;
                tally.pass();
                Ok(())
            },
            Self::Fmt => lints::fmt,
            Self::Structure => structure::check,
            Self::Licences => licences::check,
            _ => return None,
        };
        Some(Job::new(self, self.name(), check))
    }

    /// What may run beside other jobs.
    fn beside(self, binaries: &mut Binaries) -> Vec<Job> {
        let check: fn(&mut Tally) -> Result<()> = match self {
            Self::Unit => return binaries.jobs(self, Group::Unit),
            Self::Cli => return binaries.jobs(self, Group::Cli),
            Self::Machines => return binaries.jobs(self, Group::Machines),
            Self::Nix => return binaries.jobs(self, Group::Nix),
            Self::Generated => crate::generate::check,
            Self::Python => python::run,
            Self::Examples => examples::run,
            _ => return Vec::new(),
        };
        vec![Job::new(self, self.name(), check)]
    }

    /// What cargo runs.
    fn of_cargo(self) -> Option<Job> {
        let (name, check): (&str, fn(&mut Tally) -> Result<()>) = match self {
            Self::Unit => ("doc tests", binaries::doc_tests),
            Self::Clippy => ("clippy", lints::clippy),
            Self::Doc => ("doc", lints::doc),
            _ => return None,
        };
        Some(Job::new(self, name, check))
    }
}
