//! What cargo itself can check: formatting, clippy, documentation.

use anyhow::Result;

use super::tally::Tally;
use crate::command::{cargo, run};

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
    let ok = run(&mut cargo(clippy)).is_ok();
    tally.check(ok, "clippy");
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
    let ok = run(doc.env("RUSTDOCFLAGS", "-D warnings")).is_ok();
    tally.check(ok, "doc");
    Ok(())
}
