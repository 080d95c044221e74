//! The program with real machines, as a user runs it. Tests run one after another: each has the
//! host for itself, and after each nothing may be left.

mod by_hand;
mod cluster;
mod devices;
mod displays;
mod interrupted;
mod killed;
mod labs;
mod network;
mod rootless;
mod run;
mod scripts;
mod sessions;
mod storage;
mod trouble;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use machinist_tests::{Bench, Need};

/// One test.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it needs of the host, besides root file systems made of Debian packages.
    pub needs: &'static [Need],
    /// The test itself.
    pub run: fn(&Bench) -> Result<()>,
}

fn main() -> Result<ExitCode> {
    if let Some(code) = machinist_tests::above_us()? {
        return Ok(code);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let cases = [
        run::CASES,
        scripts::CASES,
        by_hand::CASES,
        sessions::CASES,
        interrupted::CASES,
        storage::CASES,
        network::CASES,
        cluster::CASES,
        devices::CASES,
        displays::CASES,
        trouble::CASES,
        killed::CASES,
        rootless::CASES,
    ];
    let trials = cases.into_iter().flatten().map(trial).collect();
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
fn causes(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join("\n  because: ")
}
