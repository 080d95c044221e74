//! `cargo xtask demo`: from a clean checkout to a lab that has run.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::command::{self, cargo, command, machinist, shown};

const QUICKSTART: &str = "examples/quickstart";

/// Sets up, builds, and runs the quickstart.
pub fn run() -> Result<ExitCode> {
    crate::setup::run(false)?;
    println!("demo: building machinist");
    command::run(&mut cargo(["build", "--package", "machinist-cli"]))?;
    let program = machinist()?;
    let mut test = command(&program.to_string_lossy(), ["test"]);
    println!("demo: {QUICKSTART}$ machinist test");
    let status = test
        .current_dir(QUICKSTART)
        .status()
        .with_context(|| format!("cannot run {}", shown(&test)))?;
    if !status.success() {
        println!("demo: the quickstart did not pass ({status}); docs/troubleshooting.md may help");
        return Ok(ExitCode::FAILURE);
    }
    println!("demo: it works; the lab is {QUICKSTART}/lab.toml");
    Ok(ExitCode::SUCCESS)
}
