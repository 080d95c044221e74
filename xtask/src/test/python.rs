//! Tests of the Python package, by unittest: the standard library is all that it needs.

use anyhow::Result;

use super::tally::Tally;
use crate::command::{command, output};

/// The tests that need no session. The others are run by those of `crates/session`, which has one.
const ALONE: &str = "test_alone*.py";

/// Runs them, and counts.
pub fn run(tally: &mut Tally) -> Result<()> {
    let discover = [
        "-m", "unittest", "discover", "-v", "-s", "tests", "-p", ALONE,
    ];
    let mut unittest = command("python3", discover);
    unittest.current_dir("python").env("PYTHONPATH", ".");
    let output = output(unittest.env("PYTHONDONTWRITEBYTECODE", "1"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let Some(counts) = Counts::parse(&text) else {
        println!("{}{text}", String::from_utf8_lossy(&output.stdout));
        tally.fail_saying("python: ended without a summary", &text);
        return Ok(());
    };
    if !output.status.success() {
        println!("{}{text}", String::from_utf8_lossy(&output.stdout));
    }
    let skipped = skipped(&text);
    for _ in 0..counts.ran.saturating_sub(counts.bad + skipped.len()) {
        tally.pass();
    }
    let failed = failed(&text);
    for (test, said) in &failed {
        tally.fail_saying(format!("python: {test}"), said);
    }
    let bad = counts.bad.max(usize::from(!output.status.success()));
    for _ in failed.len()..bad {
        tally.fail_saying("python: a test", &text);
    }
    for test in skipped {
        tally.skip(format!("python: {test}"));
    }
    Ok(())
}

/// Names and reasons from `test_x (module.Class.test_x) ... skipped 'why'`.
fn skipped(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.rsplit_once(" ... skipped "))
        .map(|(test, why)| {
            let name = test.split(' ').next().unwrap_or(test);
            format!("{name}: {}", why.trim_matches(['\'', '"']))
        })
        .collect()
}

/// Names, and what was said of them, from parts that begin with a line of `=` and `FAIL: test_x
/// (module.Class.test_x)`.
fn failed(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("\n======").skip(1);
    parts
        .filter_map(|part| {
            let (heading, said) = part.split_once('\n')?.1.split_once('\n')?;
            let name = heading.split_once(": ")?.1;
            Some((name, said.split("\nRan ").next()?.trim_matches(['-', '\n'])))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    ran: usize,
    bad: usize,
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_unittest() {
        let good = "test_a (m.C.test_a) ... ok\ntest_b (m.C.test_b) ... skipped 'no root'\n\
            -----\nRan 4 tests in 0.010s\n\nOK (skipped=1)\n";
        assert_eq!(Counts::parse(good), Some(Counts { ran: 4, bad: 0 }));
        assert_eq!(skipped(good), ["test_b: no root"]);
        let bad = "Ran 1 test in 0.0s\n\nFAILED (failures=1, errors=2)\n";
        assert_eq!(Counts::parse(bad), Some(Counts { ran: 1, bad: 3 }));
        assert_eq!(Counts::parse("Traceback"), None);
    }

    #[test]
    fn what_failed_is_known_by_name() {
        let line = "=".repeat(70);
        let text = format!(
            "test_a (m.C.test_a) ... FAIL\n\n{line}\nFAIL: test_a (m.C.test_a)\n-----\n\
             Traceback\nAssertionError: 1 != 2\n\n-----\nRan 1 test in 0.1s\n\nFAILED (failures=1)\n"
        );
        let said = "Traceback\nAssertionError: 1 != 2";
        assert_eq!(failed(&text), [("test_a (m.C.test_a)", said)]);
    }
}
