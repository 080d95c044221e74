//! Counting tests, ours and those of test programs.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::command::output;

/// What passed, what failed, what was skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: usize,
    failed: Vec<Failure>,
    skipped: Vec<String>,
}

/// A test that failed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    /// As a person would look for it.
    what: String,
    /// What it said of it, if that is known.
    said: String,
}

/// The most lines of what failed that are told again at the end, of which whoever runs us may keep
/// no more. All of it stands where the test ran.
const LINES: usize = 36;

impl Tally {
    /// One more passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// One more failed: `what`, as a person would look for it.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed.push(Failure {
            what: what.into(),
            said: String::new(),
        });
    }

    /// The same, with what is known of it.
    pub fn fail_saying(&mut self, what: impl Into<String>, said: &str) {
        self.failed.push(Failure {
            what: what.into(),
            said: said.trim_end().to_owned(),
        });
    }

    /// One more passed or failed: `command` ends with 0, or it does not. What it prints is shown in
    /// one piece: it may run beside others.
    pub fn command(&mut self, what: impl Into<String>, command: &mut Command) -> Result<()> {
        let output = output(command)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        print!("{said}");
        if output.status.success() {
            self.pass();
        } else {
            self.fail_saying(what, &said);
        }
        Ok(())
    }

    /// One more was not run: `what`, and why.
    pub fn skip(&mut self, what: impl Into<String>) {
        self.skipped.push(what.into());
    }

    /// One more passed or failed.
    pub fn check(&mut self, ok: bool, what: impl Into<String>) {
        if ok {
            self.pass();
        } else {
            self.fail(what);
        }
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Whether nothing failed.
    pub fn is_ok(&self) -> bool {
        self.failed.is_empty()
    }

    /// `N passed, N failed`, and `, N skipped` where some were.
    pub fn counts(&self) -> String {
        let mut text = format!("{} passed, {} failed", self.passed, self.failed.len());
        if !self.skipped.is_empty() {
            text += &format!(", {} skipped", self.skipped.len());
        }
        text
    }

    /// Prints what was skipped and what failed, and the counts as the last line.
    pub fn report(&self) -> ExitCode {
        for what in &self.skipped {
            println!("skipped: {what}");
        }
        for line in self.told() {
            println!("{line}");
        }
        println!("{}", self.counts());
        if self.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// What failed and what it said, in [`LINES`] lines at the most: of many, each says less.
    fn told(&self) -> Vec<String> {
        let share = LINES / self.failed.len().max(1);
        let mut lines = Vec::new();
        for failure in &self.failed {
            lines.push(format!("FAILED:  {}", failure.what));
            let said: Vec<&str> = failure.said.lines().collect();
            let said = both_ends(&said, share.saturating_sub(1));
            lines.extend(said.iter().map(|line| format!("         {line}")));
        }
        if lines.len() > LINES {
            lines.truncate(LINES - 1);
            lines.push("         ... and more".to_owned());
        }
        lines
    }

    /// Adds the tests of a program that prints as libtest does. `program` is its name, `output`
    /// what it printed, `ok` whether it ended with 0.
    ///
    /// The summary lines are what counts; the lines of single tests only give names and reasons.
    /// A program that ended without a summary, or badly in spite of a good one, is one failure.
    pub fn add_libtest(&mut self, program: &str, output: &str, ok: bool) {
        let mut summaries = 0;
        let mut failed = 0;
        let mut named = Vec::new();
        for line in output.lines() {
            if let Some(counts) = Counts::parse(line) {
                summaries += 1;
                self.passed += counts.passed;
                failed += counts.failed;
            } else if let Some((name, result)) = single(line) {
                if result.starts_with("FAILED") {
                    named.push(Failure {
                        what: format!("{program}: {name}"),
                        said: said(output, name),
                    });
                } else if let Some(reason) = result.strip_prefix("ignored") {
                    let reason = reason.trim_start_matches([',', ' ']);
                    self.skip(format!("{program}: {name}: {}", or_no_reason(reason)));
                }
            }
        }
        if failed == named.len() {
            self.failed.extend(named);
        } else {
            for _ in 0..failed {
                self.fail(format!("{program}: a test"));
            }
        }
        if summaries == 0 {
            self.failed.push(Failure {
                what: format!("{program}: ended without a summary"),
                said: end(output),
            });
        } else if !ok && failed == 0 {
            self.fail(format!("{program}: ended badly after its tests"));
        }
    }
}

fn or_no_reason(reason: &str) -> &str {
    if reason.is_empty() {
        "no reason given"
    } else {
        reason
    }
}

/// Name and result from `test NAME ... RESULT`.
fn single(line: &str) -> Option<(&str, &str)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    Some((name.trim_end(), result.trim()))
}

/// What a test said that failed, from the part of the output that begins with `---- NAME ----`, or
/// `---- NAME stdout ----`.
fn said(output: &str, name: &str) -> String {
    let is_heading = |line: &str| line.starts_with("---- ") && line.ends_with(" ----");
    let is_its = |line: &str| is_heading(line) && line.split(' ').nth(1) == Some(name);
    let from = output.lines().skip_while(|line| !is_its(line)).skip(1);
    let lines: Vec<&str> = from
        .take_while(|line| !is_heading(line) && *line != "failures:")
        .collect();
    lines.join("\n").trim().to_owned()
}

/// At the most `count` of these lines. A panic tells its reason first, a program that ran its own
/// last.
fn both_ends<'a>(lines: &[&'a str], count: usize) -> Vec<&'a str> {
    if lines.len() <= count {
        return lines.to_vec();
    }
    let first = count.div_ceil(3);
    let last = count.saturating_sub(first + 1);
    let dots: &[&str] = if count > first { &["..."] } else { &[] };
    [&lines[..first], dots, &lines[lines.len() - last..]].concat()
}

/// What tells where a program ended that printed no summary: the tests that failed, those that it was
/// in for long, and its last lines.
fn end(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES / 2)..];
    let named = lines
        .iter()
        .filter(|line| line.contains(" has been running for over ") || line.ends_with(" FAILED"))
        .filter(|line| !last.contains(line));
    let told: Vec<&str> = named.chain(last).copied().collect();
    told.join("\n")
}

struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    /// From `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            counts.split("; ").find_map(|part| {
                let (number, name) = part.split_once(' ')?;
                if name == word {
                    number.parse().ok()
                } else {
                    None
                }
            })
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str, ok: bool) -> Tally {
        let mut tally = Tally::default();
        tally.add_libtest("p", output, ok);
        tally
    }

    #[test]
    fn counts_names_and_reasons() {
        let tally = tally(
            "running 4 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ignored, no KVM here\n\
             test src/lib.rs - x (line 3) ... ok\n\nfailures:\n\n---- b::c ----\none thing\n  or two\n\n\n\
             failures:\n    b::c\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n",
            false,
        );
        assert_eq!(tally.counts(), "2 passed, 1 failed, 1 skipped");
        let [failure] = tally.failed.as_slice() else {
            panic!("{tally:?}");
        };
        assert_eq!(failure.what, "p: b::c");
        assert_eq!(failure.said, "one thing\n  or two");
        assert_eq!(tally.skipped, ["p: d: no KVM here"]);
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(
            tally("running 2 tests\n", false).counts(),
            "0 passed, 1 failed"
        );
        assert_eq!(
            tally("running 2 tests\n", true).counts(),
            "0 passed, 1 failed"
        );
    }

    #[test]
    fn a_crash_tells_what_it_was_in() {
        let slow = "test a has been running for over 60 seconds\n";
        let failed = "test c   ... FAILED\n";
        let output = format!("{slow}{failed}{}", "test b ... ok\n".repeat(20));
        let tally = tally(&output, false);
        let said = &tally.failed[0].said;
        assert!(said.starts_with(&format!("{slow}{failed}")), "{said}");
        assert_eq!(said.lines().count(), 2 + LINES / 2);
    }

    #[test]
    fn the_end_names_all_that_failed() {
        let mut tally = Tally::default();
        tally.fail_saying("a", &"why\n".repeat(100));
        assert_eq!(tally.told().len(), LINES);
        for number in 0..9 {
            let said: Vec<String> = (0..50).map(|line| format!("{number}.{line}")).collect();
            tally.fail_saying("b", &said.join("\n"));
        }
        let told = tally.told();
        assert!(told.len() <= LINES, "{told:?}");
        let names = told.iter().filter(|line| line.starts_with("FAILED"));
        assert_eq!(names.count(), 10);
        assert!(told.iter().any(|line| line.ends_with("8.0")), "{told:?}");
        for _ in 0..40 {
            tally.fail("c");
        }
        assert_eq!(tally.told().len(), LINES);
    }

    #[test]
    fn a_bad_end_after_good_tests_is_a_failure() {
        let output = "test result: ok. 1 passed; 0 failed; 0 ignored\n";
        assert_eq!(tally(output, false).counts(), "1 passed, 1 failed");
        assert_eq!(tally(output, true).counts(), "1 passed, 0 failed");
    }

    #[test]
    fn failures_whose_names_were_garbled_still_count() {
        let output =
            "test a ... hello\nFAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n";
        assert_eq!(tally(output, false).counts(), "0 passed, 1 failed");
    }
}
