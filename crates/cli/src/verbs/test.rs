//! `machinist test`

mod filter;
mod runner;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use machinist_lab::Body;
use machinist_session::OnFailure;

pub use filter::Filters;

use super::{Format, FormatArgs, block_on};
use crate::Outcome;
use crate::environment::Environment;
use crate::error::{CliError, Kind};
use crate::lab_file::LabArgs;
use crate::parse;
use crate::progress::ProgressArgs;

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
    accel: AccelArgs,
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

/// What runs the processors of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Accel {
    /// KVM where it is proved to work, else emulation
    #[default]
    Auto,
    /// KVM, or an error
    Kvm,
    /// Emulation
    Tcg,
}

/// The option of every verb that boots.
#[derive(Debug, Args)]
pub struct AccelArgs {
    /// What runs the processors of VMs
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
}

impl AccelArgs {
    /// As the engine calls it.
    pub fn engine(&self) -> machinist_session::Accel {
        match self.accel {
            Accel::Auto => machinist_session::Accel::Auto,
            Accel::Kvm => machinist_session::Accel::Kvm,
            Accel::Tcg => machinist_session::Accel::Tcg,
        }
    }
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
        let plan = runner::Plan {
            tests,
            jobs: usize::from(self.jobs),
            accel: self.accel.engine(),
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
