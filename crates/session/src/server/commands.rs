//! Running commands in machines.

mod spawned;

use std::sync::Arc;
use std::time::{Duration, Instant};

use machinist_events::{CommandRecord, Stream, What};
use machinist_guest::{self as guest, Exit, GuestError, Reader, Running, Writer};
use machinist_machine::Console;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::output::{self, Keep, MOST_KEPT, Teller};
use super::parts::Parts;
use crate::chain;
use crate::control::Control;
use crate::hub::{Hub, Wait};
use crate::protocol::{Command, Data, Executed, Fault, Program, Until, Verb};
use crate::quote::quote;

/// How long standard error may stay open after the command and its standard output have ended,
/// before what comes there later goes to the log alone.
const STDERR_LAG: Duration = Duration::from_millis(100);
/// Pauses between the times of a repeated command.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Where commands run that do not say where: as in NixOS tests.
const DIRECTORY: &str = "/tmp";
/// The status of a command that was killed because nobody waits for it any more.
const KILLED: i32 = 128 + 9;
/// The status of a command that could not be run.
const NOT_RUN: i32 = 127;
/// The status of a command that nobody waits for.
const NOT_AWAITED: i32 = -2;
/// How much of an output a failure tells, in bytes.
const TAIL: usize = 4000;

pub(super) async fn perform(
    hub: &Arc<Hub>,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<Executed, Fault> {
    match verb {
        Verb::Execute {
            machine,
            command,
            detach: false,
            purpose,
        } => Ok(run(hub, &machine, &command, purpose).await?.executed),
        Verb::Execute {
            machine,
            command,
            purpose,
            ..
        } => detach(hub, machine, command, purpose).await,
        Verb::Retry {
            machine,
            command,
            until,
            timeout,
            ..
        } => retry(hub, &machine, &command, until, hub.limit(timeout)?).await,
        Verb::Spawn { machine, command } => {
            spawned::spawn(hub, &machine, &command, parts, words).await
        }
        _ => Err(Fault::usage("this cannot be asked here")),
    }
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) executed: Executed,
    machine: String,
    command: String,
}

impl Ran {
    /// What a failure tells of it.
    pub(crate) fn record(&self) -> CommandRecord {
        CommandRecord {
            machine: self.machine.clone(),
            command: self.command.clone(),
            status: Some(self.executed.status),
            seconds: self.executed.seconds,
            stdout: tail(&self.executed.stdout),
            stderr: tail(&self.executed.stderr),
        }
    }
}

fn tail(data: &Data) -> String {
    let from = data.0.len().saturating_sub(TAIL);
    let text = String::from_utf8_lossy(&data.0[from..]).into_owned();
    if from > 0 {
        format!("[...]{text}")
    } else {
        text
    }
}

/// A command that runs in a machine, and that is told in the log.
struct Run<'a> {
    told: Told<'a>,
    control: Arc<dyn Control>,
    text: String,
    stdin: Writer,
    stdout: Reader,
    stderr: Reader,
    process: Running,
}

/// A command in the log. One that is dropped before its end is told to have been killed.
struct Told<'a> {
    hub: &'a Hub,
    machine: &'a str,
    id: u64,
    began: Instant,
    ended: bool,
}

impl Told<'_> {
    fn end(&mut self, status: i32) -> f64 {
        self.ended = true;
        let seconds = self.began.elapsed().as_secs_f64();
        let finished = What::CommandFinished {
            id: self.id,
            status,
            seconds,
        };
        self.hub.log.emit_of(self.machine, finished);
        seconds
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(KILLED);
        }
    }
}

/// Starts a command, and the machine if that is off.
async fn start<'a>(
    hub: &'a Hub,
    machine: &'a str,
    command: &Command,
    purpose: Option<String>,
    stdin: bool,
) -> Result<Run<'a>, Fault> {
    let control = hub.machine(machine)?;
    // Output counts until nobody holds it any more: that is the contract of `execute`.
    let mut request = guest_command(hub, &*control, command)?.linger();
    if stdin {
        request = request.stdin();
    }
    let agent = control.agent().await?;
    let text = text(&command.program);
    let id = hub.log.new_id();
    let started = What::CommandStarted {
        id,
        command: text.clone(),
        purpose,
    };
    hub.log.emit_of(machine, started);
    let mut told = Told {
        hub,
        machine,
        id,
        began: Instant::now(),
        ended: false,
    };
    match agent.spawn(&request).await {
        Ok(process) => {
            let (stdin, stdout, stderr, process) = process.split();
            Ok(Run {
                told,
                control,
                text,
                stdin,
                stdout,
                stderr,
                process,
            })
        }
        Err(error) => {
            told.end(NOT_RUN);
            Err(fault(&*control, &text, error).await)
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn execute(hub: &Hub, machine: &str, command: &Command) -> Result<Ran, Fault> {
    run(hub, machine, command, None).await
}

/// Runs a command to its end, and says what is wanted of it.
async fn run(
    hub: &Hub,
    machine: &str,
    command: &Command,
    purpose: Option<String>,
) -> Result<Ran, Fault> {
    let run = start(hub, machine, command, purpose, command.input.is_some()).await?;
    let Run {
        mut told,
        control,
        text,
        mut stdin,
        stdout,
        stderr,
        mut process,
    } = run;
    let teller = |stream| Teller::new(&hub.log, machine, told.id, stream);
    let feed = async {
        // A command that does not read its input has its reasons.
        if let Some(Data(input)) = &command.input {
            drop(stdin.write_all(input).await);
        }
        drop(stdin.shutdown().await);
        Ok(())
    };
    let (out, err) = (Keep::all(), Keep::beginning());
    let reading = output::read(stdout, teller(Stream::Stdout), out.clone());
    let err_teller = teller(Stream::Stderr).on(console_of_errors(hub, &*control).await);
    let err_reading = output::read(stderr, err_teller, err.clone());
    // It may go on after the command.
    let mut err_reading = Box::pin(err_reading);
    let running = async { tokio::try_join!(end_of(&mut process, reading), feed) };
    let (ended, read) = meanwhile(running, &mut err_reading).await;
    let exit = match ended {
        Ok((exit, ())) => exit,
        Err(Stop::Lost(error)) => return Err(fault(&*control, &text, error).await),
        Err(Stop::TooLoud) => {
            return Err(Fault::test(format!(
                "{machine}: `{text}` printed more than {MOST_KEPT} bytes: let it write to a file, \
                 and copy that"
            )));
        }
    };
    if !read
        && tokio::time::timeout(STDERR_LAG, &mut err_reading)
            .await
            .is_err()
    {
        // Something in the background holds it. It goes on, and so does the log.
        hub.detach(async move {
            err_reading.await;
        });
    }
    let status = status(exit);
    let seconds = told.end(status);
    Ok(Ran {
        executed: Executed {
            status,
            stdout: Data(out.drain()),
            stderr: Data(err.drain()),
            seconds,
        },
        machine: machine.to_owned(),
        command: text,
    })
}

/// The console on which commands' errors are found, too: the shell that NixOS' driver has in a VM
/// writes them there.
async fn console_of_errors(hub: &Hub, control: &dyn Control) -> Option<Console> {
    let is_driven = hub.facts.driver.is_some() && control.kind() == "vm";
    if is_driven {
        control.console().await.ok()
    } else {
        None
    }
}

/// Waits until a command has ended, and nobody holds its standard output any more.
async fn end_of(process: &mut Running, reading: impl Future<Output = bool>) -> Result<Exit, Stop> {
    // What prints too much may never end by itself: its end is that nobody reads on.
    let reading = async { reading.await.then_some(()).ok_or(Stop::TooLoud) };
    let mut reading = std::pin::pin!(reading);
    let mut read = false;
    let exit = loop {
        tokio::select! {
            exit = process.wait() => break exit.map_err(Stop::Lost)?,
            all = &mut reading, if !read => {
                all?;
                read = true;
            }
        }
    };
    if read {
        return Ok(exit);
    }
    let (exit, all) = process.outlast(exit, reading).await;
    all.transpose()?;
    Ok(exit)
}

/// Why a command is not waited for to its end.
enum Stop {
    /// It cannot be: there is no way to it any more.
    Lost(GuestError),
    /// It prints more than an answer takes.
    TooLoud,
}

/// Waits for `work`, and does `other` as far as it comes meanwhile. Says whether that has ended.
async fn meanwhile<T>(work: impl Future<Output = T>, mut other: impl Future + Unpin) -> (T, bool) {
    let mut work = std::pin::pin!(work);
    let mut ended = false;
    loop {
        tokio::select! {
            done = &mut work => return (done, ended),
            _ = &mut other, if !ended => ended = true,
        }
    }
}

/// Starts a command and leaves it running.
async fn detach(
    hub: &Arc<Hub>,
    machine: String,
    command: Command,
    purpose: Option<String>,
) -> Result<Executed, Fault> {
    // The machine has to be there: later nobody would be told that it is not.
    hub.machine(&machine)?.agent().await?;
    let going_on = Arc::clone(hub);
    hub.detach(async move { drop(run(&going_on, &machine, &command, purpose).await) });
    Ok(Executed {
        status: NOT_AWAITED,
        stdout: Data::default(),
        stderr: Data::default(),
        seconds: 0.0,
    })
}

/// Repeats a command until it ends as wanted.
async fn retry(
    hub: &Hub,
    machine: &str,
    command: &Command,
    until: Until,
    within: Option<Duration>,
) -> Result<Executed, Fault> {
    let goal = match until {
        Until::Success => "to succeed",
        Until::Failure => "to fail",
    };
    let text = text(&command.program);
    let wait = Wait::begin(hub, machine, &format!("`{text}` {goal}"));
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut seen = None;
    loop {
        let last = within.is_some_and(|within| began.elapsed() >= within);
        let ran = execute(hub, machine, command).await?;
        if (ran.executed.status == 0) == (until == Until::Success) {
            wait.end(true);
            return Ok(ran.executed);
        }
        if last {
            return Err(Fault::test(format!(
                "waiting for `{text}` {goal} timed out after {} s (exit code {})",
                crate::hub::seconds(began.elapsed()),
                ran.executed.status,
            ))
            .about(ran.record()));
        }
        if seen != Some(ran.executed.status) {
            seen = Some(ran.executed.status);
            wait.progress(format!("exit code {}", ran.executed.status));
        }
        let left = within.map_or(pause, |within| within.saturating_sub(began.elapsed()));
        tokio::time::sleep(pause.min(left)).await;
        // Slowly: what has come is seen at most about a fifth of the wait later.
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
    }
}

/// From the protocol's command to the guest's.
pub(super) fn guest_command(
    hub: &Hub,
    control: &dyn Control,
    command: &Command,
) -> Result<guest::Command, Fault> {
    let mut request = match &command.program {
        Program::Argv(words) if words.is_empty() => {
            return Err(Fault::usage("a command needs at least one word"));
        }
        Program::Argv(words) => guest::Command::argv(words),
        Program::Shell(script) => guest::Command::shell(script),
    };
    for (name, value) in control.env().iter().chain(&command.env) {
        request = request.env(name, value);
    }
    if let Some(user) = &command.user {
        request = request.user(user);
    }
    if let Some(timeout) = hub.limit(command.timeout)? {
        request = request.timeout(timeout);
    }
    request = request.dir(command.cwd.as_deref().unwrap_or(DIRECTORY));
    Ok(request)
}

/// A command for people.
pub(super) fn text(program: &Program) -> String {
    match program {
        Program::Shell(script) => script.clone(),
        Program::Argv(words) => {
            let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
            quoted.join(" ")
        }
    }
}

/// The status as a shell gives it.
pub(super) fn status(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::TimedOut => 124,
    }
}

/// What went wrong in a guest, said of the machine. A machine that is gone says why.
pub(super) async fn fault(control: &dyn Control, what: &str, error: GuestError) -> Fault {
    match error {
        GuestError::Channel(_) => {
            let reason = control.why_lost().await;
            let reason = reason.unwrap_or_else(|| chain::text(&error));
            Fault::machinery(format!("`{what}`: {reason}"))
        }
        GuestError::TooLong => Fault::usage(format!("`{what}`: {error}")),
        error => Fault::test(format!("{what}: {}", chain::text(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_a_shell_would_take_them() {
        let argv = |words: &[&str]| {
            text(&Program::Argv(
                words.iter().map(|&word| word.to_owned()).collect(),
            ))
        };
        assert_eq!(argv(&["psql", "-Atc", "select 1"]), "psql -Atc 'select 1'");
        assert_eq!(argv(&["echo", "", "it's"]), "echo '' 'it'\\''s'");
    }
}
