//! `machinist test`

mod filter;
mod runner;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use machinist_lab::Body;
use machinist_session::{OnFailure, Settings, TooMuch, memory_needed};

pub use filter::Filters;

use super::{Format, FormatArgs, block_on};
use crate::Outcome;
use crate::environment::Environment;
use crate::error::{CliError, Kind, MEMORY_HINT};
use crate::lab_file::LabArgs;
use crate::parse;
use crate::progress::ProgressArgs;
use crate::starts::StartArgs;

/// Run the tests of the lab file
///
/// Each test gets machines of its own, and leaves nothing behind. The first Ctrl-C ends the
/// tests and cleans up, the second kills.
#[derive(Debug, Args)]
pub struct Test {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    lab: LabArgs,
    /// How many tests run side by side
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    #[command(flatten)]
    start: StartArgs,
    /// Multiply all time limits of tests, steps and scripts
    #[arg(long, value_name = "F", default_value = "1", value_parser = parse::factor)]
    timeout_factor: f64,
    /// End everything, with exit code 124, after this time, such as `20m`
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    global_timeout: Option<Duration>,
    /// What to do when a test fails
    #[arg(long, value_enum, default_value_t)]
    on_failure: OnFailureArg,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Keep each test's event log and its machines' consoles, in DIR/TEST
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// What to do when a test fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum OnFailureArg {
    /// Report it, and go on with the next test
    #[default]
    Report,
    /// Stand still, machines running, until `machinist attach --continue`
    Pause,
}

impl From<OnFailureArg> for OnFailure {
    fn from(arg: OnFailureArg) -> Self {
        match arg {
            OnFailureArg::Report => Self::Report,
            OnFailureArg::Pause => Self::Pause,
        }
    }
}

impl Test {
    /// Runs them.
    pub fn run(self, environment: &Environment) -> Outcome {
        let lab = self.lab.load(environment)?;
        let tests = self.filters.apply(&lab.lab.tests);
        if tests.is_empty() {
            return Err(nothing(&self.filters, &lab.lab.tests));
        }
        let missing = missing_scripts(&tests, &lab.base);
        if !missing.is_empty() {
            return Err(CliError::new(Kind::Lab, missing.join("\n"))
                .hint("a script's path is relative to the lab file"));
        }
        // Before there are threads.
        let machines = lab.lab.machines.iter();
        environment.containers(machines.filter(|machine| {
            tests
                .iter()
                .any(|test| test.machines.contains(&machine.name))
        }));
        let settings = self.start.settings(environment);
        fits(&lab.lab, &tests, &settings)?;
        let plan = runner::Plan {
            tests,
            jobs: usize::from(self.jobs),
            settings,
            timeout_factor: self.timeout_factor,
            global_timeout: self.global_timeout,
            on_failure: self.on_failure.into(),
            junit: self.junit.as_ref().map(|path| environment.here.join(path)),
            named_file: self.lab.file.clone(),
            logs: self.logs.as_ref().map(|path| environment.here.join(path)),
            progress: &self.progress,
            json: self.format.format == Format::Json,
        };
        block_on(runner::run(environment, &lab, plan))
    }
}

/// An error that names every test whose machines need more memory than they may ever have.
fn fits(
    lab: &machinist_lab::Lab,
    tests: &[machinist_lab::Test],
    settings: &Settings,
) -> Result<(), CliError> {
    let too_much = tests.iter().filter_map(|test| {
        let machines: Vec<&str> = test.machines.iter().map(AsRef::as_ref).collect();
        let asked = memory_needed(lab, &machines, &settings.containers, settings.warm);
        let budget = settings.memory_budget;
        let error = TooMuch { asked, budget };
        (asked > budget).then(|| format!("test {:?}: {error}", test.name))
    });
    let too_much: Vec<String> = too_much.collect();
    if too_much.is_empty() {
        return Ok(());
    }
    Err(CliError::host(too_much.join("\n")).hint(MEMORY_HINT))
}

/// Scripts that cannot be there: a mistake in the lab file, told before anything boots.
fn missing_scripts(tests: &[machinist_lab::Test], base: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for test in tests {
        if let Body::Script(path) = &test.body
            && let Err(error) = base.join(path).metadata()
        {
            let (name, path) = (&test.name, path.display());
            missing.push(format!("test {name:?}: script: {path}: {error}"));
        }
    }
    missing
}

fn nothing(filters: &Filters, tests: &[machinist_lab::Test]) -> CliError {
    if tests.is_empty() {
        return CliError::nothing_selected("the lab file has no tests")
            .hint("`machinist up` starts its machines; a test is a table [[test]]");
    }
    let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
    CliError::nothing_selected(format!("no test matches {filters}"))
        .hint(format!("there are: {}", names.join(", ")))
}
