//! What cargo itself can check: formatting, clippy, documentation.

use anyhow::Result;

use super::tally::Tally;
use crate::command::{cargo, humbly};

/// Formatting of all crates.
pub fn fmt(tally: &mut Tally) -> Result<()> {
    tally.command(
        "fmt: run `cargo fmt --all`",
        &mut cargo(["fmt", "--all", "--check"]),
    )
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
    tally.command("clippy", &mut humbly(cargo(clippy)))
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
    tally.command("doc", &mut humbly(doc))
}
