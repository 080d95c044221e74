//! A running command.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use machinist_sys::vfork::{Child, End};
use machinist_wire::message::{Command, Control, Exit, Failure, Reply, decode};
use machinist_wire::{Endpoint, Lane, StreamId};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Input, Port, Step, Task, Token, Wants};
use crate::server::Context;
use crate::shells::{Job, Progress};
use crate::spawn::{self, Streams};

/// Between the polite and the other signal when a command's time is over.
const GRACE: Duration = Duration::from_millis(500);

const EXIT: u8 = 0;
const STDIN: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;

/// What runs a command.
enum Worker {
    /// A process that is our child.
    Process(Child),
    /// A shell that was waiting, with the request, should it not come to run it.
    Shell(Job, Box<Command>),
    /// It has ended.
    None,
}

struct Running {
    worker: Worker,
    /// Its process group, once it runs.
    group: Option<Pid>,
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    /// What the host sent and the command has not read.
    input: VecDeque<u8>,
    input_ended: bool,
    /// Standard output and error, until they end.
    outputs: [Option<OwnedFd>; 2],
    linger: bool,
    exited: bool,
    expired: bool,
    kill_at: Option<Instant>,
}

/// Starts a command for the host.
pub(super) fn start(
    request: &Command,
    port: &mut Port<'_>,
    context: &mut Context,
) -> Result<Box<dyn Task>, Failure> {
    let login = spawn::login(request, &mut context.logins)?;
    let warm = context.shells.run(request, login, &mut context.dying);
    let (worker, group, streams) = match warm {
        Some((job, streams)) => (Worker::Shell(job, Box::new(request.clone())), None, streams),
        None => {
            let (child, streams) = spawn::spawn(request, login)?;
            let pid = child.pid();
            say_started(port, pid);
            (Worker::Process(child), Some(pid), streams)
        }
    };
    let Streams {
        stdin,
        stdout,
        stderr,
        terminal,
    } = streams;
    if stderr.is_none() {
        port.end(Lane::Error);
    }
    let mut running = Running {
        worker,
        group,
        terminal,
        stdin,
        input: VecDeque::new(),
        input_ended: false,
        outputs: [Some(stdout), stderr],
        linger: request.linger,
        exited: false,
        expired: false,
        kill_at: None,
    };
    // A shell that has waited for a while has long said who it is.
    running.listen(port, context)?;
    Ok(Box::new(running))
}

fn say_started(port: &mut Port<'_>, pid: Pid) {
    port.reply(&Reply::Started {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
    });
}

impl Task for Running {
    fn wants<'fd>(&'fd self, endpoint: &Endpoint, stream: StreamId, wants: &mut Wants<'fd>) {
        match &self.worker {
            Worker::Process(child) => wants.file(child.as_fd(), PollFlags::IN, EXIT),
            Worker::Shell(job, _) => wants.file(job.as_fd(), PollFlags::IN, EXIT),
            Worker::None => {}
        }
        if let Some(stdin) = &self.stdin
            && !self.input.is_empty()
        {
            wants.file(stdin.as_fd(), PollFlags::OUT, STDIN);
        }
        let lanes = [(Lane::Main, STDOUT), (Lane::Error, STDERR)];
        for (output, (lane, number)) in self.outputs.iter().zip(lanes) {
            let Some(output) = output else { continue };
            if endpoint.capacity(stream, lane, 1) == 0 {
                continue;
            }
            wants.file(output.as_fd(), PollFlags::IN, number);
            // The command is gone: what is in the pipe now is all that counts.
            if self.exited && !self.linger {
                wants.at_once();
            }
        }
        if let Some(at) = self.kill_at {
            wants.at(at);
        }
    }

    fn ready(&mut self, port: &mut Port<'_>, token: Token, context: &mut Context) -> Step {
        match token {
            Token::File(EXIT) => match &self.worker {
                Worker::Process(_) => self.reap(port),
                _ => {
                    if let Err(failure) = self.listen(port, context) {
                        port.fail(failure);
                        return Step::Finished;
                    }
                }
            },
            Token::File(STDIN) => self.feed(port),
            Token::File(STDOUT) => self.pump(port, Lane::Main, context),
            Token::File(_) => self.pump(port, Lane::Error, context),
            Token::Timer => {
                if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                    self.kill_at = None;
                    self.signal_group(Signal::KILL);
                    // Who went to a group of its own lives on, and is not waited for.
                    self.linger &= !self.exited;
                }
                if self.exited {
                    self.pump(port, Lane::Main, context);
                    self.pump(port, Lane::Error, context);
                }
            }
        }
        self.step()
    }

    fn input(&mut self, port: &mut Port<'_>, input: Input, context: &mut Context) -> Step {
        match input {
            Input::Data(bytes) => {
                if self.stdin.is_some() {
                    self.input.extend(bytes);
                } else {
                    port.consumed(bytes.len());
                }
                self.feed(port);
            }
            Input::End => {
                self.input_ended = true;
                if self.terminal.is_some() {
                    // A terminal's end of file is a character.
                    self.input.push_back(4);
                }
                self.feed(port);
            }
            Input::Credit => {
                self.pump(port, Lane::Main, context);
                self.pump(port, Lane::Error, context);
            }
            Input::Message(payload) => self.control(&payload),
        }
        self.step()
    }

    fn abandon(mut self: Box<Self>, context: &mut Context) {
        if self.exited {
            return;
        }
        self.signal_group(Signal::KILL);
        match self.worker {
            Worker::Process(child) => context.dying.push(child),
            Worker::Shell(job, _) => context.shells.give_up(job, &mut context.dying),
            Worker::None => {}
        }
    }

    fn child(&self) -> Option<Pid> {
        match &self.worker {
            Worker::Process(child) => Some(child.pid()),
            _ => None,
        }
    }
}

impl Running {
    fn step(&self) -> Step {
        let open = self.outputs.iter().any(Option::is_some);
        match self.exited && !open && self.kill_at.is_none() {
            true => Step::Finished,
            false => Step::Continue,
        }
    }

    fn signal_group(&mut self, signal: Signal) {
        match (&mut self.worker, self.group) {
            (Worker::Shell(job, _), _) => job.signal(signal),
            (_, Some(group)) => {
                let _ = kill_process_group(group, signal);
            }
            (_, None) => {}
        }
    }

    fn control(&mut self, payload: &[u8]) {
        match decode(payload, "control") {
            Ok(Control::Signal(number)) if !self.exited => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal_group(signal);
                }
            }
            // After its end too: its group may hold its output, and be waited for.
            Ok(Control::Expire) if !self.exited || self.linger => {
                self.expired = true;
                self.kill_at = Some(Instant::now() + GRACE);
                self.signal_group(Signal::TERM);
                // A stopped process does not end otherwise.
                self.signal_group(Signal::CONT);
            }
            Ok(Control::Resize(size)) => {
                if let Some(terminal) = &self.terminal {
                    drop(spawn::resize(terminal, size));
                }
            }
            _ => {}
        }
    }

    fn reap(&mut self, port: &mut Port<'_>) {
        self.end_group();
        let Worker::Process(child) = &self.worker else {
            return;
        };
        let end = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(end)) => end,
            // Someone else reaped it; that it ended is all that is known.
            Err(_) => End::Signal(0),
        };
        self.worker = Worker::None;
        self.ended(port, end);
    }

    /// Looks what a shell says.
    fn listen(&mut self, port: &mut Port<'_>, context: &mut Context) -> Result<(), Failure> {
        while let Worker::Shell(job, _) = &mut self.worker {
            let Some(progress) = job.progress() else {
                break;
            };
            if let Progress::Began(pid) = progress {
                self.group = Some(pid);
                say_started(port, pid);
                continue;
            }
            if let Worker::Shell(job, request) = std::mem::replace(&mut self.worker, Worker::None) {
                self.leave(job, &request, progress, port, context)?;
            }
        }
        Ok(())
    }

    /// Takes leave of a shell, for the reason that it gave.
    fn leave(
        &mut self,
        job: Job,
        request: &Command,
        progress: Progress,
        port: &mut Port<'_>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        if let Progress::Ended(end) = progress {
            self.end_group();
            context.shells.take_back(job);
            self.ended(port, end);
            // What is there, and where nobody else holds it, its end.
            for lane in [Lane::Main, Lane::Main, Lane::Error, Lane::Error] {
                self.pump(port, lane, context);
            }
            return Ok(());
        }
        context.shells.give_up(job, &mut context.dying);
        match progress {
            Progress::NotBegun => {
                let login = spawn::login(request, &mut context.logins)?;
                let (child, streams) = spawn::spawn(request, login)?;
                self.group = Some(child.pid());
                say_started(port, child.pid());
                self.worker = Worker::Process(child);
                self.outputs = [Some(streams.stdout), streams.stderr];
            }
            Progress::Failed => {
                return Err(Failure {
                    text: "a waiting shell cannot open its streams".into(),
                    errno: 0,
                });
            }
            _ => {
                self.signal_group(Signal::KILL);
                self.ended(port, End::Signal(Signal::KILL.as_raw()));
            }
        }
        Ok(())
    }

    /// At the end of a command that was given up: the rest of its group has had its warning too.
    /// Where its leader is our child, it is not yet reaped, and nobody else can have its number.
    fn end_group(&mut self) {
        if self.expired {
            if let Some(group) = self.group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            self.linger = false;
        }
    }

    fn ended(&mut self, port: &mut Port<'_>, end: End) {
        let exit = match end {
            _ if self.expired => Exit::TimedOut,
            End::Status(code) => Exit::Code(code),
            End::Signal(signal) => Exit::Signal(signal),
        };
        self.kill_at = None;
        self.exited = true;
        self.stdin = None;
        self.input.clear();
        port.reply(&Reply::Exited(exit));
    }

    /// Writes to the command what it takes.
    fn feed(&mut self, port: &mut Port<'_>) {
        let Some(stdin) = &self.stdin else {
            return;
        };
        while !self.input.is_empty() {
            match rustix::io::write(stdin, self.input.as_slices().0) {
                Ok(count) => {
                    self.input.drain(..count);
                    port.consumed(count);
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => {
                    // It reads no more. The host may send on; nothing becomes of it.
                    port.consumed(self.input.len());
                    self.input.clear();
                    self.stdin = None;
                    return;
                }
            }
        }
        if self.input_ended && self.terminal.is_none() {
            self.stdin = None;
        }
    }

    /// Sends on what the command printed, as much as the host takes.
    fn pump(&mut self, port: &mut Port<'_>, lane: Lane, context: &mut Context) {
        let slot = &mut self.outputs[lane as usize];
        let Some(output) = slot else {
            return;
        };
        let mut buffer = [0; machinist_wire::MAX_DATA];
        let room = port.capacity(lane).min(buffer.len());
        if room == 0 {
            return;
        }
        match rustix::io::read(output.as_fd(), &mut buffer[..room]) {
            Ok(count) if count > 0 => {
                port.send(lane, &buffer[..count]);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !self.exited || self.linger => {}
            // The command ended, and someone still holds its output.
            Err(Errno::AGAIN) => {
                context.sinks.extend(slot.take());
                port.end(lane);
            }
            // End of file; a terminal says it by an error.
            _ => {
                *slot = None;
                port.end(lane);
            }
        }
    }
}
