//! Builders, with a real Nix as their client: its daemon, and an ordinary user of that. One test after
//! another.

mod builds;
mod external;
mod host_store;
mod killed;
mod life;
mod modules;
mod nixos;
mod random;
mod rig;
mod system;
mod vm;
mod ways;
mod web;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use machinist_tests::nix::NixHost;
use machinist_tests::{Need, causes};

use rig::Rig;

/// One test.
struct Case {
    name: &'static str,
    run: fn(&Rig) -> Result<()>,
}

const NEEDS: [Need; 3] = [Need::Container, Need::Vm, Need::Debian];

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
        life::CASES,
        builds::CASES,
        external::CASES,
        modules::CASES,
        host_store::CASES,
        ways::CASES,
        system::CASES,
        killed::CASES,
        random::CASES,
        nixos::CASES,
        vm::CASES,
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
        let run = || {
            let rig = Rig::new(host)?;
            (case.run)(&rig)?;
            rig.nothing_left()
        };
        run().map_err(|error| Failed::from(causes(&error)))?;
        Ok(Completion::Completed)
    })
}
