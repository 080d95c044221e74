//! Whole runs, as they look.

mod bars;
mod failures;
mod junit;
mod nixos;
mod plain;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use machinist_events::{
    CommandRecord, Event, Failure, FailureKind, Frame, Level, Outcome, SkipReason, Stream, What,
};

use crate::{Hint, Options, Progress, Summary, Terminal};

/// A writer whose contents can be looked at afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const PLAIN: Options = Options {
    progress: Progress::Plain,
    width: 100,
    colour: false,
    verbose: false,
};

/// 2026-01-01 00:00:00 UTC.
const START: f64 = 1_767_225_600.0;

fn at(elapsed: f64, what: What) -> Event {
    Event {
        time: START + elapsed,
        elapsed,
        test: None,
        machine: None,
        what,
    }
}

fn failure() -> Failure {
    Failure {
        kind: FailureKind::Test,
        message: "command `pg_isready` failed (exit status 2)".into(),
        exception: Some("RequestedAssertionFailed".into()),
        traceback: None,
        frames: vec![Frame {
            file: "tests/failover.py".into(),
            line: 12,
            function: "<module>".into(),
            source: "    db.succeed(\"pg_isready\")".into(),
        }],
        command: Some(CommandRecord {
            machine: "db".into(),
            command: "pg_isready".into(),
            status: Some(2),
            seconds: 0.4,
            stdout: "/var/run/postgresql:5432 - no response\n".into(),
            stderr: "\x1b[31mwarning\x1b[0m: \x1b]0;owned\x07slow\n".into(),
        }),
        also: vec!["db: unit postgresql@15-main.service has failed".into()],
    }
}

/// A passed test, a failed one, one that was skipped.
#[expect(clippy::too_many_lines, reason = "a list")]
fn run() -> Vec<Event> {
    let id = 7;
    let serves = |t, what| at(t, what).of_test("serves the index");
    let failover = |t, what| at(t, what).of_test("failover");
    let (backend, accel) = ("nspawn".to_owned(), None);
    vec![
        at(
            0.0,
            What::SessionStarted {
                session: "s1".into(),
                version: "0.1.0".into(),
            },
        ),
        at(
            0.1,
            What::ImageStarted {
                image: "debian:bookworm".into(),
            },
        ),
        at(
            0.2,
            What::ImageStep {
                image: "debian:bookworm".into(),
                step: "packages".into(),
            },
        ),
        at(
            9.0,
            What::ImageFinished {
                image: "debian:bookworm".into(),
                seconds: 8.9,
            },
        ),
        serves(9.1, What::TestStarted),
        serves(9.1, What::MachineStarting { backend, accel }).of_machine("web"),
        failover(9.2, What::TestStarted),
        failover(
            9.2,
            What::MachineStarting {
                backend: "qemu".into(),
                accel: Some("kvm".into()),
            },
        )
        .of_machine("db"),
        failover(
            9.9,
            What::AccelFallback {
                reason: "KVM: internal error".into(),
            },
        )
        .of_machine("db"),
        serves(10.0, What::MachineUp { seconds: 0.9 }).of_machine("web"),
        serves(10.1, What::MachineReady { seconds: 1.0 }).of_machine("web"),
        serves(
            10.2,
            What::WaitStarted {
                id,
                what: "port 80".into(),
            },
        )
        .of_machine("web"),
        failover(
            11.0,
            What::Console {
                line: "[    1.0] postgres: \x1b[2Jcould not bind".into(),
            },
        )
        .of_machine("db"),
        serves(
            11.3,
            What::WaitProgress {
                id,
                state: "nobody listens".into(),
            },
        )
        .of_machine("web"),
        serves(
            12.0,
            What::WaitFinished {
                id,
                ok: true,
                seconds: 1.8,
            },
        )
        .of_machine("web"),
        serves(
            12.1,
            What::CommandStarted {
                id: 8,
                command: "curl localhost".into(),
                purpose: None,
            },
        )
        .of_machine("web"),
        serves(
            12.2,
            What::CommandOutput {
                id: 8,
                stream: Stream::Stdout,
                line: "Welcome".into(),
            },
        )
        .of_machine("web"),
        serves(
            12.2,
            What::CommandFinished {
                id: 8,
                status: 0,
                seconds: 0.1,
            },
        )
        .of_machine("web"),
        serves(
            12.3,
            What::TestFinished {
                outcome: Outcome::Passed,
                seconds: 3.2,
                failure: None,
            },
        ),
        failover(
            12.4,
            What::Log {
                text: "two\nlines".into(),
                level: Level::Info,
            },
        ),
        failover(
            12.5,
            What::SectionStarted {
                name: "a part".into(),
            },
        ),
        failover(
            12.5,
            What::SubtestFinished {
                name: "primary".into(),
                ok: false,
                seconds: 1.0,
                message: Some("no".into()),
            },
        ),
        failover(
            80.0,
            What::WaitProgress {
                id: 99,
                state: "slow".into(),
            },
        )
        .of_machine("db"),
        failover(
            81.0,
            What::TestFinished {
                outcome: Outcome::Failed,
                seconds: 71.8,
                failure: Some(failure()),
            },
        ),
        at(
            81.1,
            What::TestSkipped(SkipReason {
                text: "needs /dev/kvm".into(),
            }),
        )
        .of_test("nested"),
        at(82.0, What::SessionFinished),
    ]
}

fn show(options: Options, events: &[Event]) -> String {
    let out = Shared::default();
    let mut terminal = Terminal::new(out.clone(), options).with_hints(|test| {
        vec![
            Hint {
                label: "logs".into(),
                text: "/run/machinist/s1".into(),
            },
            Hint {
                label: "again".into(),
                text: format!("machinist test '{test}'"),
            },
            Hint {
                label: "keep".into(),
                text: format!("machinist test --on-failure pause '{test}'"),
            },
        ]
    });
    for event in events {
        terminal.event(event).unwrap();
        terminal.tick();
    }
    let hints = vec![Hint {
        label: "log".into(),
        text: "events.jsonl".into(),
    }];
    terminal
        .finish(&Summary {
            seconds: 82.0,
            not_run: 1,
            hints,
        })
        .unwrap();
    out.text()
}
