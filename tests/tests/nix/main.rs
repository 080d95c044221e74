//! machinist in the builds of a real Nix, in its sandbox. One after another: each has the host for
//! itself.

mod bastion;
mod code;
mod doctor;
mod driver;
mod labs;
mod machines;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use machinist_tests::nix::NixHost;
use machinist_tests::{Need, causes};

/// One test.
struct Case {
    name: &'static str,
    run: fn(&NixHost) -> Result<()>,
}

const NEEDS: [Need; 2] = [Need::Container, Need::Debian];

fn main() -> Result<ExitCode> {
    if let Some(code) = machinist_tests::above_us()? {
        return Ok(code);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lacking = NEEDS.iter().find_map(|need| need.lacking());
    let host = if arguments.list || lacking.is_some() {
        None
    } else {
        Some(Arc::new(NixHost::new()?))
    };
    let cases = [
        code::CASES,
        machines::CASES,
        doctor::CASES,
        bastion::CASES,
        labs::CASES,
        driver::CASES,
    ];
    let trials = cases
        .into_iter()
        .flatten()
        .map(|case| trial(case, host.clone(), lacking.clone()));
    Ok(libtest_mimic::run(&arguments, trials.collect()).exit_code())
}

fn trial(case: &'static Case, host: Option<Arc<NixHost>>, lacking: Option<String>) -> Trial {
    Trial::ignorable_test(case.name, move || {
        let Some(host) = host else {
            return Ok(Completion::ignored_with(lacking.unwrap_or_default()));
        };
        (case.run)(&host).map_err(|error| Failed::from(causes(&error)))?;
        Ok(Completion::Completed)
    })
}
