//! Tests that run in two lanes, one after another in each.
//!
//! A VM keeps one processor busy while it is emulated, and the others wait. So tests that have
//! nothing but VMs run beside the rest: they make no mount, interface or control group, which is
//! what a test with containers could take for something that it has left itself.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Bench, Look, Need, above_us};

/// One test.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it needs of the host, besides root file systems made of Debian packages.
    pub needs: &'static [Need],
    /// The test itself.
    pub run: fn(&Bench) -> Result<()>,
}

impl Case {
    /// What it may have left that has to be looked for when it has ended.
    fn look(&self) -> Look {
        if self.needs.contains(&Need::Vm) && !self.needs.contains(&Need::Container) {
            Look::OwnProcesses
        } else {
            Look::Host
        }
    }
}

/// The whole of a test program: runs those of the cases that its command line asks for. What a case
/// leaves behind is a failure of it, or of the whole where it cannot be told whose it is.
///
/// # Errors
/// The processes below us cannot be watched over; something is left behind.
pub fn run_cases(cases: &[&'static [Case]]) -> Result<ExitCode> {
    if let Some(code) = above_us()? {
        return Ok(code);
    }
    let all = Bench::new()?;
    let mut arguments = Arguments::from_args();
    // Each case waits for its lane, so that none keeps a thread from a case of the other lane.
    arguments.test_threads = Some(cases.iter().map(|cases| cases.len()).sum());
    let (beside, rest) = (Arc::default(), Arc::default());
    let trials = cases.iter().copied().flatten().map(|case| {
        let lane = match case.look() {
            Look::OwnProcesses => &beside,
            Look::Host => &rest,
        };
        trial(case, Arc::clone(lane))
    });
    let ended = libtest_mimic::run(&arguments, trials.collect());
    all.nothing_left().context("after all tests")?;
    Ok(ended.exit_code())
}

fn trial(case: &'static Case, lane: Arc<Mutex<()>>) -> Trial {
    Trial::ignorable_test(case.name, move || {
        let needs = case.needs.iter().chain(&[Need::Debian]);
        if let Some(reason) = needs.filter_map(|need| need.lacking()).next() {
            return Ok(Completion::ignored_with(reason));
        }
        let _only_one = lane.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        let result = in_bench(case);
        #[expect(clippy::print_stdout, reason = "for whoever looks where the time goes")]
        {
            println!("{}: {:.1} s", case.name, begin.elapsed().as_secs_f64());
        }
        result.map_err(|error| Failed::from(causes(&error)))?;
        Ok(Completion::Completed)
    })
}

/// Runs the test, and looks for leftovers also where it failed.
fn in_bench(case: &Case) -> Result<()> {
    let bench = Bench::looking_at(case.look())?;
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
