//! Tests that run one after another, each with the host for itself.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Bench, Need, above_us};

/// One test.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it needs of the host, besides root file systems made of Debian packages.
    pub needs: &'static [Need],
    /// The test itself.
    pub run: fn(&Bench) -> Result<()>,
}

/// The whole of a test program: runs those of the cases that its command line asks for. What a case
/// leaves behind is a failure of it.
///
/// # Errors
/// The processes below us cannot be watched over.
pub fn run_cases(cases: &[&'static [Case]]) -> Result<ExitCode> {
    if let Some(code) = above_us()? {
        return Ok(code);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = cases.iter().copied().flatten().map(trial).collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

fn trial(case: &'static Case) -> Trial {
    Trial::ignorable_test(case.name, move || {
        let needs = case.needs.iter().chain(&[Need::Debian]);
        if let Some(reason) = needs.filter_map(|need| need.lacking()).next() {
            return Ok(Completion::ignored_with(reason));
        }
        in_bench(case).map_err(|error| Failed::from(causes(&error)))?;
        Ok(Completion::Completed)
    })
}

/// Runs the test, and looks for leftovers also where it failed.
fn in_bench(case: &Case) -> Result<()> {
    let bench = Bench::new()?;
    let result = (case.run)(&bench);
    let left = bench.nothing_left();
    match (result, left) {
        (Err(error), Err(left)) => Err(error.context(left.to_string())),
        (Err(error), Ok(())) => Err(error),
        (Ok(()), left) => left.context("the test itself passed"),
    }
}

/// The error and what caused it, without a backtrace.
#[must_use]
pub fn causes(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join("\n  because: ")
}
