//! The examples, each run as a user runs it.

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::command::{self, cargo, command, machinist};

/// Runs `machinist test` in each folder of `examples/` that has a lab, and counts.
pub fn run(tally: &mut Tally) -> Result<()> {
    command::run(&mut cargo([
        "build",
        "--quiet",
        "--package",
        "machinist-cli",
    ]))?;
    let program = machinist()?;
    let mut folders = Vec::new();
    for entry in std::fs::read_dir("examples").context("cannot read examples")? {
        let path = entry.context("cannot read examples")?.path();
        if path.join("lab.toml").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    for folder in folders {
        let name = folder.display().to_string();
        println!("{name}");
        let mut test = command(&program.to_string_lossy(), ["test"]);
        let ok = command::run(test.current_dir(&folder)).is_ok();
        tally.check(ok, name);
    }
    Ok(())
}
