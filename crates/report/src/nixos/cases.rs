//! JUnit: a subtest is a case, and a run without subtests is one case, `main`.

use std::io::Write;
use std::time::Duration;

use machinist_events::{Event, Failure, FailureKind, Outcome, What, plain_line};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Entry, lines, wrong};
use crate::JunitError;

const SUITE: &str = "NixOS integration test";
const MAIN: &str = "main";
/// How much of what was said goes into one case.
const OUTPUT: usize = 256 << 10;

/// A subtest.
#[derive(Debug, Default)]
struct Case {
    name: String,
    began: f64,
    seconds: Option<f64>,
    /// How much of that its own subtests took.
    nested: f64,
    said: Said,
    wrong: Option<(NonSuccessKind, String)>,
}

/// What was said, in a case or in all of the test.
#[derive(Debug, Default)]
struct Said {
    out: String,
    err: String,
}

/// Collects cases, and writes them at the end.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    cases: Vec<Case>,
    /// The subtests that run, outermost first.
    open: Vec<usize>,
    all: Said,
    last: f64,
    ended: Option<(Outcome, f64, Option<Failure>)>,
}

impl Cases {
    /// Takes note of an event, and of what is said of it.
    pub(crate) fn event(&mut self, event: &Event, entries: &[Entry]) {
        self.last = event.elapsed;
        if let What::SubtestStarted { name } = &event.what {
            self.open.push(self.cases.len());
            self.cases.push(Case {
                name: plain_line(name).into_owned(),
                began: event.elapsed,
                ..Case::default()
            });
        }
        self.say(entries);
        match &event.what {
            What::SubtestFinished {
                name,
                ok,
                seconds,
                message,
            } => self.subtest(name, *ok, *seconds, message.as_deref()),
            What::TestFinished {
                outcome,
                seconds,
                failure,
            } => self.ended = Some((*outcome, *seconds, failure.clone())),
            _ => {}
        }
    }

    /// Takes note of what is said.
    pub(crate) fn say(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.all.add(entry);
            if let Some(case) = self.open.last().and_then(|at| self.cases.get_mut(*at)) {
                case.said.add(entry);
            }
        }
    }

    fn subtest(&mut self, name: &str, ok: bool, seconds: f64, message: Option<&str>) {
        let name = plain_line(name);
        let cases = &mut self.cases;
        let Some(place) = self.open.iter().rposition(|at| cases[*at].name == name) else {
            return;
        };
        let at = self.open.remove(place);
        cases[at].seconds = Some(seconds);
        if !ok {
            let message = plain_line(message.unwrap_or_default()).into_owned();
            cases[at].wrong = Some((NonSuccessKind::Failure, message));
        }
        if let Some(outer) = place.checked_sub(1).map(|outer| self.open[outer]) {
            cases[outer].nested += seconds;
        }
    }

    /// Writes the report.
    pub(crate) fn write(mut self, out: impl Write) -> Result<(), JunitError> {
        self.end();
        let mut suite = TestSuite::new(SUITE);
        let seconds = self.ended.as_ref().map_or(self.last, |ended| ended.1);
        suite.set_time(duration(seconds));
        for case in self.cases {
            suite.add_test_case(case.junit());
        }
        if !self.all.out.is_empty() {
            suite.set_system_out(self.all.out);
        }
        if !self.all.err.is_empty() {
            suite.set_system_err(self.all.err);
        }
        let mut report = Report::new(SUITE);
        report.set_time(duration(seconds));
        report.add_test_suite(suite);
        Ok(report.serialize(out)?)
    }

    /// Says of each case how it ended, and makes one for what happened outside of all of them.
    fn end(&mut self) {
        let kind = kind(self.ended.as_ref());
        for at in std::mem::take(&mut self.open) {
            let case = &mut self.cases[at];
            case.seconds = Some((self.last - case.began).max(0.0));
            case.wrong = Some((kind.unwrap_or(NonSuccessKind::Error), "did not end".into()));
        }
        let mut failed = false;
        for case in &mut self.cases {
            if let Some(wrong) = &mut case.wrong {
                failed = true;
                // Whose failure it is, only the end of the test tells.
                wrong.0 = kind.unwrap_or(wrong.0);
            }
        }
        let outside = kind.filter(|_| !failed);
        if !self.cases.is_empty() && outside.is_none() {
            return;
        }
        let alone = self.cases.is_empty();
        let inside: f64 = self.cases.iter().map(Case::own).sum();
        let (seconds, failure) = match &self.ended {
            Some((_, seconds, failure)) => (*seconds, failure.as_ref()),
            None => (self.last, None),
        };
        let message = failure.map_or_else(|| "the test did not end".into(), wrong::summary);
        let mut main = Case {
            name: MAIN.into(),
            seconds: Some((seconds - inside).max(0.0)),
            wrong: outside.map(|kind| (kind, message)),
            ..Case::default()
        };
        if alone {
            main.said = std::mem::take(&mut self.all);
        } else if let Some(failure) = failure {
            for line in wrong::lines(failure) {
                main.said.err.push_str(&line);
                main.said.err.push('\n');
            }
        }
        self.cases.push(main);
    }
}

/// How what failed is marked; none if nothing did.
fn kind(ended: Option<&(Outcome, f64, Option<Failure>)>) -> Option<NonSuccessKind> {
    match ended {
        Some((Outcome::Passed, ..)) => None,
        Some((Outcome::Failed | Outcome::TimedOut, _, failure)) => {
            let failure = failure.as_ref().map(|failure| failure.kind);
            Some(match failure {
                Some(FailureKind::Machinery) => NonSuccessKind::Error,
                Some(FailureKind::Test) | None => NonSuccessKind::Failure,
            })
        }
        Some((Outcome::Error | Outcome::Interrupted, ..)) | None => Some(NonSuccessKind::Error),
    }
}

impl Case {
    /// How long it took without its own subtests.
    fn own(&self) -> f64 {
        (self.seconds.unwrap_or(0.0) - self.nested).max(0.0)
    }

    fn junit(self) -> TestCase {
        let own = self.own();
        let status = match self.wrong {
            None => TestCaseStatus::success(),
            Some((kind, message)) => {
                let mut status = TestCaseStatus::non_success(kind);
                if message.is_empty() {
                    status.set_message("test case failed");
                } else {
                    status.set_message(message);
                }
                status
            }
        };
        let mut case = TestCase::new(self.name, status);
        case.set_time(duration(own));
        if !self.said.out.is_empty() {
            case.set_system_out(self.said.out);
        }
        if !self.said.err.is_empty() {
            case.set_system_err(self.said.err);
        }
        case
    }
}

impl Said {
    fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Wrong { text } => keep(&mut self.err, text),
            Entry::Line { text, .. } | Entry::Printed { text, .. } => keep(&mut self.out, text),
            Entry::Serial { machine, text } => keep(&mut self.out, &format!("{machine} # {text}")),
            Entry::Open { title, .. } => keep(&mut self.out, title),
            Entry::Close {
                title,
                seconds,
                ok: true,
                ..
            } => keep(&mut self.out, &lines::finished(title, *seconds)),
            Entry::Close { .. } => {}
        }
    }
}

/// Adds a line. The end is what matters: of too much the beginning goes.
fn keep(all: &mut String, line: &str) {
    if all.len() > OUTPUT {
        let half = all.ceil_char_boundary(OUTPUT / 2);
        all.replace_range(..half, "[...]\n");
    }
    all.push_str(line);
    all.push('\n');
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
