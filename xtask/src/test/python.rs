//! Tests of the Python package, by unittest: the standard library is all that it needs.

use std::path::Path;

use anyhow::Result;

use super::tally::Tally;
use crate::command::{command, output};

/// Runs them, and counts.
pub fn run(tally: &mut Tally) -> Result<()> {
    if !Path::new("python/tests").is_dir() {
        return Ok(());
    }
    let mut unittest = command(
        "python3",
        ["-m", "unittest", "discover", "-s", "tests", "-t", "."],
    );
    let output = output(unittest.current_dir("python"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let counts = Counts::parse(&text);
    if !output.status.success() || counts.is_none() {
        println!("{}{text}", String::from_utf8_lossy(&output.stdout));
    }
    let counts = counts.unwrap_or(Counts {
        ran: 0,
        bad: 1,
        skipped: 0,
    });
    for _ in 0..counts.ran.saturating_sub(counts.bad + counts.skipped) {
        tally.pass();
    }
    for _ in 0..counts.bad.max(usize::from(!output.status.success())) {
        tally.fail("python: a test");
    }
    for _ in 0..counts.skipped {
        tally.skip("python: a test (`python3 -m unittest discover -v` says why)");
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    ran: usize,
    bad: usize,
    skipped: usize,
}

impl Counts {
    /// From `Ran 12 tests in 0.1s` and `FAILED (failures=1, errors=2, skipped=3)`.
    fn parse(text: &str) -> Option<Self> {
        let ran = text.lines().find_map(|line| {
            let mut words = line.strip_prefix("Ran ")?.split(' ');
            words.next()?.parse().ok()
        })?;
        let last = text.lines().rev().find(|line| !line.is_empty())?;
        let number = |word: &str| {
            last.split(['(', ')', ',', ' '])
                .find_map(|part| part.strip_prefix(word)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0)
        };
        Some(Self {
            ran,
            bad: number("failures") + number("errors"),
            skipped: number("skipped"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_unittest() {
        let good = "....\n-----\nRan 4 tests in 0.010s\n\nOK (skipped=1)\n";
        assert_eq!(
            Counts::parse(good),
            Some(Counts {
                ran: 4,
                bad: 0,
                skipped: 1
            })
        );
        let bad = "Ran 1 test in 0.0s\n\nFAILED (failures=1, errors=2)\n";
        assert_eq!(
            Counts::parse(bad),
            Some(Counts {
                ran: 1,
                bad: 3,
                skipped: 0
            })
        );
        assert_eq!(Counts::parse("Traceback"), None);
    }
}
