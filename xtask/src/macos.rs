//! The code for Macs, checked on Linux: its types, against what a Mac really has. It cannot be linked
//! here, nor run; what has no such code in it is tested like everything else.

use anyhow::Result;

use crate::command::{cargo, run, workspace};

/// Where its standard library is missing, the compiler says how to get it.
const TARGET: &str = "aarch64-apple-darwin";

/// What a Mac has by now, with all that it needs; the rest runs machines.
const PACKAGES: [&str; 3] = ["machinist-doctor", "machinist-builder", "machinist-sys"];

/// Checks it.
pub fn check() -> Result<()> {
    let packages = PACKAGES.iter().flat_map(|name| ["--package", name]);
    let words = ["check", "--target", TARGET].into_iter().chain(packages);
    // In the place of the agent, whose standard library for that processor may not be here.
    let carried = workspace()?.join("Cargo.toml");
    let mut check = cargo(words);
    check.env("MACHINIST_AGENT_BINARY", carried);
    run(&mut check)
}
