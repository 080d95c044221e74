//! Tests without code: their steps, one after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use machinist_events::{Failure, FailureKind, Frame};
use machinist_lab::{Action, Expect, Step, WaitFor};
use regex::Regex;

use crate::hub::{Hub, Wait};
use crate::protocol::{Command, Fault, FaultKind, Program};
use crate::server::{self, Ran};

/// Where `wait = "port:..."` looks.
const HERE: &str = "localhost";

/// Runs the steps of the test `test`, until one fails.
pub(crate) async fn run(
    hub: &Hub,
    base: &Path,
    lab_file: &Path,
    test: &str,
    steps: &[Step],
) -> Result<(), Failure> {
    for (position, step) in steps.iter().enumerate() {
        if let Err(fault) = perform(hub, base, step).await {
            let machine = step.machine.as_str();
            let message = format!("step {} ({machine}: {}): {fault}", position + 1, text(step));
            let mut failure = failure(message, fault);
            failure.frames.push(frame(lab_file, test, step).await);
            return Err(failure);
        }
    }
    Ok(())
}

/// A fault as a test's failure.
pub(crate) fn failure(message: String, fault: Fault) -> Failure {
    Failure {
        kind: match fault.kind {
            FaultKind::Machinery => FailureKind::Machinery,
            FaultKind::Test | FaultKind::Usage | FaultKind::Cancelled => FailureKind::Test,
        },
        message,
        exception: None,
        traceback: None,
        frames: Vec::new(),
        command: fault.command.map(|command| *command),
        also: Vec::new(),
    }
}

async fn frame(lab_file: &Path, test: &str, step: &Step) -> Frame {
    // The lab may be gone or changed since it was read: then there is no source to show.
    let lab = tokio::fs::read_to_string(lab_file)
        .await
        .unwrap_or_default();
    let source = lab.lines().nth(step.line.saturating_sub(1)).unwrap_or("");
    Frame {
        file: lab_file.display().to_string(),
        line: u32::try_from(step.line).unwrap_or(u32::MAX),
        function: test.to_owned(),
        source: source.trim().to_owned(),
    }
}

/// A step for people.
fn text(step: &Step) -> String {
    match &step.action {
        Action::Wait(what) => format!("wait for {what}"),
        Action::Run { program, .. } => format!("run `{program}`"),
        Action::CopyIn { from, to } | Action::CopyOut { from, to } => {
            format!("copy {} to {}", from.display(), to.display())
        }
    }
}

async fn perform(hub: &Hub, base: &Path, step: &Step) -> Result<(), Fault> {
    let machine = step.machine.as_str();
    let within = step
        .timeout
        .map(|timeout| timeout.mul_f64(hub.facts.timeout_factor));
    match &step.action {
        Action::Wait(what) => wait(hub, machine, what, within).await,
        Action::Run {
            program,
            user,
            status,
            stdout,
            stderr,
        } => {
            let mut command = Command::of(match program {
                machinist_lab::Program::Shell(script) => Program::Shell(script.clone()),
                machinist_lab::Program::Argv(words) => Program::Argv(words.clone()),
            });
            command.user.clone_from(user);
            command.timeout = step.timeout.map(|timeout| timeout.as_secs_f64());
            let ran = server::execute(hub, machine, &command).await?;
            judge(&ran, step.timeout, *status, stdout, stderr)
        }
        Action::CopyIn { from, to } => {
            let from = base.join(from);
            let copy = server::copy_in(hub, machine, &from, to);
            limited(hub, machine, &text(step), within, copy).await
        }
        Action::CopyOut { from, to } => {
            let to = base.join(to);
            let copy = server::copy_out(hub, machine, from, &to);
            limited(hub, machine, &text(step), within, copy).await
        }
    }
}

async fn limited(
    hub: &Hub,
    machine: &str,
    what: &str,
    within: Option<Duration>,
    work: impl Future<Output = Result<(), Fault>>,
) -> Result<(), Fault> {
    match within {
        None => work.await,
        Some(_) => hub.waiting(machine, what, within, work).await,
    }
}

async fn wait(
    hub: &Hub,
    machine: &str,
    what: &WaitFor,
    within: Option<Duration>,
) -> Result<(), Fault> {
    match what {
        WaitFor::Port(port) => server::port(hub, machine, (HERE, *port), true, within).await,
        WaitFor::File(path) => server::file(hub, machine, path, within).await,
        WaitFor::Unit(name) => server::unit(hub, machine, name, None, within).await,
        WaitFor::Socket(path) => server::socket(hub, machine, path, false, within).await,
        WaitFor::Ready => {
            let control = hub.machine(machine)?;
            let ready = control.ready();
            hub.waiting(machine, "the machine to be ready", within, ready)
                .await
        }
        WaitFor::Journal(regex) => server::journal(hub, machine, &pattern(regex)?, within).await,
        WaitFor::Console(regex) => console(hub, machine, regex, within).await,
    }
}

fn pattern(regex: &str) -> Result<Regex, Fault> {
    Regex::new(regex).map_err(|error| Fault::usage(error.to_string()))
}

async fn console(
    hub: &Hub,
    machine: &str,
    regex: &str,
    within: Option<Duration>,
) -> Result<(), Fault> {
    let pattern = pattern(regex)?;
    let control = hub.machine(machine)?;
    Arc::clone(&control).start(None).await?;
    let console = control.console().await?;
    let wait = Wait::begin(hub, machine, &format!("/{regex}/ on the console"));
    let within = within.unwrap_or(Duration::MAX);
    let found = console
        .wait_for(within, |line| pattern.is_match(line))
        .await;
    wait.end(found.is_some());
    found.map(drop).ok_or_else(|| {
        let last = console.tail(3).join("\n  ");
        Fault::test(format!(
            "the console printed nothing like it in {} s; its last lines:\n  {last}",
            crate::hub::seconds(within)
        ))
    })
}

/// Whether a command did what its step expects.
fn judge(
    ran: &Ran,
    limit: Option<Duration>,
    status: i32,
    stdout: &Expect,
    stderr: &Expect,
) -> Result<(), Fault> {
    let executed = &ran.executed;
    let wrong = if executed.status == status {
        let out = stdout.mismatch(&executed.stdout.to_text());
        let err = stderr.mismatch(&executed.stderr.to_text());
        out.map(|why| format!("standard output {why}"))
            .or_else(|| err.map(|why| format!("standard error {why}")))
    } else if let (124, Some(limit)) = (executed.status, limit) {
        let limit = crate::hub::seconds(limit);
        Some(format!("the command did not end in {limit} s"))
    } else {
        Some(format!("exit status is {}, not {status}", executed.status))
    };
    match wrong {
        None => Ok(()),
        Some(why) => Err(Fault::test(why).about(ran.record())),
    }
}
