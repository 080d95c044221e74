//! A test of a NixOS test driver, as it looks.

mod junit;
mod lines;
mod xml;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use machinist_events::{Event, Failure, FailureKind, Frame, Level, Outcome, Stream, What};

use super::{Shared, at};
use crate::DriverReport;

fn of(machine: &str, elapsed: f64, what: What) -> Event {
    at(elapsed, what).of_machine(machine)
}

fn started(id: u64, command: &str, purpose: Option<&str>) -> What {
    What::CommandStarted {
        id,
        command: command.into(),
        purpose: purpose.map(str::to_owned),
    }
}

fn printed(id: u64, stream: Stream, line: &str) -> What {
    What::CommandOutput {
        id,
        stream,
        line: line.into(),
    }
}

fn ended(id: u64, status: i32, seconds: f64) -> What {
    What::CommandFinished {
        id,
        status,
        seconds,
    }
}

fn log(text: &str, level: Level) -> What {
    What::Log {
        text: text.into(),
        level,
    }
}

fn console(line: &str) -> What {
    What::Console { line: line.into() }
}

fn subtest(name: &str) -> What {
    What::SubtestStarted { name: name.into() }
}

fn subtest_over(name: &str, seconds: f64, message: Option<&str>) -> What {
    What::SubtestFinished {
        name: name.into(),
        ok: message.is_none(),
        seconds,
        message: message.map(str::to_owned),
    }
}

fn over(outcome: Outcome, seconds: f64, failure: Option<Failure>) -> Event {
    at(
        seconds,
        What::TestFinished {
            outcome,
            seconds,
            failure,
        },
    )
}

fn failed() -> Failure {
    Failure {
        kind: FailureKind::Test,
        message: "command `false` failed (exit code 1)".into(),
        exception: Some("RequestedAssertionFailed".into()),
        traceback: Some("a long stack".into()),
        frames: vec![Frame {
            file: "/t/script.py".into(),
            line: 3,
            function: "<module>".into(),
            source: "    machine.succeed(\"false\")".into(),
        }],
        command: None,
        also: vec!["machine: unit a.service has failed".into()],
    }
}

/// A machine boots, and runs commands.
fn beginning() -> Vec<Event> {
    let starting = What::MachineStarting {
        backend: "qemu".into(),
        accel: Some("tcg".into()),
    };
    vec![
        at(0.0, What::TestStarted),
        of("machine", 0.1, starting),
        of(
            "machine",
            0.2,
            console("\x1b[1;32mOK\x1b[0m Started \x1b]0;title\x07a.service"),
        ),
        of("machine", 1.0, What::MachineUp { seconds: 0.9 }),
        of("machine", 1.0, started(1, "uname -r", Some("must succeed"))),
        of("machine", 1.01, printed(1, Stream::Stdout, "6.1.0")),
        of("machine", 1.02, printed(1, Stream::Stderr, "a warning")),
        of("machine", 1.03, ended(1, 0, 0.03)),
        of("machine", 1.1, started(2, "true", None)),
        of("machine", 1.1, ended(2, 0, 0.0)),
        at(
            1.2,
            What::ScriptOutput {
                stream: Stream::Stdout,
                line: "printed".into(),
            },
        ),
        at(1.3, log("of interest", Level::Info)),
        of("machine", 1.4, log("of the machine", Level::Info)),
    ]
}

/// What comes after, with parts, some of them failing.
fn parts() -> Vec<Event> {
    let unit = What::WaitStarted {
        id: 3,
        what: "unit a.service".into(),
    };
    let active = What::WaitFinished {
        id: 3,
        ok: true,
        seconds: 0.25,
    };
    vec![
        at(2.0, subtest("works")),
        of("machine", 2.0, unit),
        of("machine", 2.25, active),
        at(2.5, subtest_over("works", 0.5, None)),
        at(3.0, subtest("fails")),
        of("machine", 3.0, started(4, "false", Some("must succeed"))),
        of("machine", 3.0, printed(4, Stream::Stdout, "so sorry")),
        of("machine", 3.1, ended(4, 1, 0.1)),
        at(
            3.2,
            subtest_over("fails", 0.2, Some("command `false` failed (exit code 1)")),
        ),
    ]
}

fn failing() -> Vec<Event> {
    let mut events = beginning();
    events.extend(parts());
    events.push(over(Outcome::Failed, 3.3, Some(failed())));
    events
}

/// What a run shows on the terminal, and what its script prints.
fn show(events: &[Event], level: Level, colour: bool) -> (String, String) {
    let (log, out) = (Shared::default(), Shared::default());
    let mut report = DriverReport::new(level).with_terminal(log.clone(), out.clone(), colour);
    for event in events {
        report.event(event).unwrap();
    }
    (log.text(), out.text())
}

fn contents(path: &Path) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}
