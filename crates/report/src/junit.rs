//! JUnit XML, as CI systems read it: a test is a test case, the lab file a suite.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use machinist_events::{Event, Failure, Outcome, What, plain, plain_line};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// Could not write JUnit XML.
#[derive(Debug, thiserror::Error)]
#[error("could not write JUnit XML")]
pub struct JunitError(#[from] quick_junit::SerializeError);

/// How much of what a test said goes into its case.
const OUTPUT: usize = 256 << 10;

/// A test that runs.
#[derive(Debug, Default)]
struct Case {
    time: f64,
    output: String,
    subtests: Vec<(String, String)>,
}

/// Collects events, and writes one report of them.
#[derive(Debug)]
pub struct Junit {
    suite: String,
    started: Option<f64>,
    ended: f64,
    running: BTreeMap<String, Case>,
    cases: Vec<TestCase>,
}

impl Junit {
    /// A report of one suite with this name, such as the lab file's.
    #[must_use]
    pub fn new(suite: &str) -> Self {
        Self {
            suite: suite.to_owned(),
            started: None,
            ended: 0.0,
            running: BTreeMap::new(),
            cases: Vec::new(),
        }
    }

    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        self.started.get_or_insert(event.time);
        self.ended = self.ended.max(event.time);
        let Some(test) = event.test.as_deref() else {
            return;
        };
        let case = self.running.entry(test.to_owned()).or_default();
        match &event.what {
            What::TestStarted => case.time = event.time,
            What::SubtestFinished {
                name,
                ok,
                seconds,
                message,
            } => {
                let end = if *ok { "passed" } else { "failed" };
                let why = message.as_ref().map(|m| format!(": {}", plain_line(m)));
                let text = format!("{end} after {seconds:.3} s{}", why.unwrap_or_default());
                case.subtests
                    .push((format!("subtest.{}", plain_line(name)), text));
            }
            What::Log { text, .. } => case.say(event, text),
            What::ScriptOutput { line, .. } | What::Console { line } => case.say(event, line),
            What::CommandStarted { command, .. } => case.say(event, &format!("$ {command}")),
            What::CommandOutput { line, .. } => case.say(event, line),
            What::Warning { text } => case.say(event, &format!("warning: {text}")),
            What::TestSkipped(reason) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(plain_line(&reason.text));
                self.end(test, event.time, 0.0, status);
            }
            What::TestFinished {
                outcome,
                seconds,
                failure,
            } => {
                let status = status(*outcome, failure.as_ref());
                self.end(test, event.time, *seconds, status);
            }
            _ => {}
        }
    }

    fn end(&mut self, test: &str, now: f64, seconds: f64, status: TestCaseStatus) {
        let case = self.running.remove(test).unwrap_or_default();
        let mut junit = TestCase::new(plain_line(test), status);
        junit.set_classname(plain_line(&self.suite));
        junit.set_time(duration(seconds));
        let began = if case.time > 0.0 { case.time } else { now };
        if let Some(time) = timestamp(began) {
            junit.set_timestamp(time);
        }
        for (name, text) in case.subtests {
            junit.add_property((name.as_str(), text.as_str()));
        }
        if !case.output.is_empty() {
            junit.set_system_out(case.output);
        }
        self.cases.push(junit);
    }

    /// Writes the report.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self, out: impl io::Write) -> Result<(), JunitError> {
        let started = self.started.unwrap_or(0.0);
        let took = duration(self.ended - started);
        let mut suite = TestSuite::new(plain_line(&self.suite));
        let mut report = Report::new("machinist");
        suite.set_time(took);
        report.set_time(took);
        if let Some(time) = timestamp(started) {
            suite.set_timestamp(time);
            report.set_timestamp(time);
        }
        suite.add_test_cases(self.cases);
        report.add_test_suite(suite);
        Ok(report.serialize(out)?)
    }
}

impl Case {
    fn say(&mut self, event: &Event, text: &str) {
        // The end is what matters, and a case of a hundred megabytes is read by nothing.
        if self.output.len() > OUTPUT {
            let half = self.output.ceil_char_boundary(OUTPUT / 2);
            self.output.replace_range(..half, "[...]\n");
        }
        let who = event.machine.as_deref().unwrap_or("script");
        for line in plain(text).lines() {
            // Writing to a String cannot fail.
            _ = writeln!(
                self.output,
                "{:>9.3} {who}: {}",
                event.elapsed,
                plain_line(line)
            );
        }
    }
}

fn status(outcome: Outcome, failure: Option<&Failure>) -> TestCaseStatus {
    let (kind, ty) = match outcome {
        Outcome::Passed => return TestCaseStatus::success(),
        Outcome::Failed => (NonSuccessKind::Failure, "failed"),
        Outcome::TimedOut => (NonSuccessKind::Failure, "timed out"),
        Outcome::Error => (NonSuccessKind::Error, "machinery failed"),
        Outcome::Interrupted => (NonSuccessKind::Error, "interrupted"),
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(ty);
    if let Some(failure) = failure {
        let message = plain(&failure.message);
        status.set_message(message.lines().next().unwrap_or(ty));
        status.set_description(description(failure));
    }
    status
}

/// All that is known of a failure.
fn description(failure: &Failure) -> String {
    let mut text = plain(&failure.message).into_owned();
    for frame in &failure.frames {
        let place = format!("{}:{} in {}", frame.file, frame.line, frame.function);
        _ = write!(
            text,
            "\n{}\n    {}",
            plain_line(&place),
            plain_line(&frame.source)
        );
    }
    if let Some(command) = &failure.command {
        _ = write!(text, "\n{}$ {}", command.machine, plain(&command.command));
        if let Some(status) = command.status {
            _ = write!(text, "\nexit status {status}");
        }
        for (name, output) in [("stdout", &command.stdout), ("stderr", &command.stderr)] {
            if !output.is_empty() {
                _ = write!(text, "\n{name}:\n{}", plain(output).trim_end());
            }
        }
    }
    for also in &failure.also {
        _ = write!(text, "\nalso: {}", plain_line(also));
    }
    text
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn timestamp(time: f64) -> Option<DateTime<FixedOffset>> {
    // Milliseconds, rounded: the format has no more digits, and cuts.
    let time = Duration::try_from_secs_f64((time * 1000.0).round() / 1000.0 + 1e-6).ok()?;
    let seconds = i64::try_from(time.as_secs()).ok()?;
    DateTime::from_timestamp(seconds, time.subsec_nanos()).map(|time| time.fixed_offset())
}
