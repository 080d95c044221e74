//! What cargo itself can check: formatting, clippy, documentation.

use std::process::Command;

use anyhow::Result;

use super::tally::Tally;
use crate::command::{cargo, humbly, output, run};

/// Formatting of all crates.
pub fn fmt(tally: &mut Tally) -> Result<()> {
    let ok = run(&mut cargo(["fmt", "--all", "--check"])).is_ok();
    tally.check(ok, "fmt: run `cargo fmt --all`");
    Ok(())
}

/// Clippy over all targets; a warning is an error.
pub fn clippy(tally: &mut Tally) -> Result<()> {
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    tally.check(passes(&mut humbly(cargo(clippy)))?, "clippy");
    Ok(())
}

/// API documentation, private items too, so that no link in it is broken.
pub fn doc(tally: &mut Tally) -> Result<()> {
    let mut doc = cargo([
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    tally.check(passes(&mut humbly(doc))?, "doc");
    Ok(())
}

/// Whether a command ends with 0. What it prints is shown in one piece: it may run beside others.
fn passes(command: &mut Command) -> Result<bool> {
    let said = output(command)?;
    let text = [said.stdout, said.stderr].concat();
    print!("{}", String::from_utf8_lossy(&text));
    Ok(said.status.success())
}
