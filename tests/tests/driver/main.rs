//! The program as `nixos-test-driver`, with machines that start scripts run. Tests run one after
//! another: each has the host for itself, and after each nothing may be left.

mod agentbox;
mod login;
mod scenarios;
mod seeing;
mod session;
mod shown;
mod stage;
mod warm;

use std::process::ExitCode;

use anyhow::Result;
use machinist_tests::Case;

fn main() -> Result<ExitCode> {
    machinist_tests::run_cases(&[
        session::CASES,
        scenarios::CASES,
        agentbox::CASES,
        shown::CASES,
        login::CASES,
        seeing::CASES,
        warm::CASES,
    ])
}
