//! The program with real machines, as a user runs it. Tests run one after another: each has the
//! host for itself, and after each nothing may be left.

mod by_hand;
mod checkpoints;
mod cluster;
mod devices;
mod displays;
mod interrupted;
mod killed;
mod labs;
mod network;
mod restored;
mod rootless;
mod run;
mod scripts;
mod sessions;
mod shared;
mod storage;
mod trouble;
mod warm;

use std::process::ExitCode;

use anyhow::Result;
use machinist_tests::Case;

fn main() -> Result<ExitCode> {
    machinist_tests::run_cases(&[
        run::CASES,
        scripts::CASES,
        by_hand::CASES,
        checkpoints::CASES,
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
        restored::CASES,
        warm::CASES,
    ])
}
