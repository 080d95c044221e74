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
use crate::spawn::{self, Streams};

/// Between the polite and the other signal when a command's time is over.
const GRACE: Duration = Duration::from_millis(500);

const EXIT: u8 = 0;
const STDIN: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;

struct Running {
    child: Child,
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
    let (child, streams) = spawn::spawn(request, login)?;
    let Streams {
        stdin,
        stdout,
        stderr,
        terminal,
    } = streams;
    port.reply(&Reply::Started {
        pid: child.pid().as_raw_nonzero().get().unsigned_abs(),
    });
    if stderr.is_none() {
        port.end(Lane::Error);
    }
    Ok(Box::new(Running {
        child,
        terminal,
        stdin,
        input: VecDeque::new(),
        input_ended: false,
        outputs: [Some(stdout), stderr],
        linger: request.linger,
        exited: false,
        expired: false,
        kill_at: None,
    }))
}

impl Task for Running {
    fn wants<'fd>(&'fd self, endpoint: &Endpoint, stream: StreamId, wants: &mut Wants<'fd>) {
        if !self.exited {
            wants.file(self.child.as_fd(), PollFlags::IN, EXIT);
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
            Token::File(EXIT) => self.reap(port),
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

    fn abandon(self: Box<Self>, context: &mut Context) {
        if !self.exited {
            self.signal_group(Signal::KILL);
            context.dying.push(self.child);
        }
    }

    fn child(&self) -> Option<Pid> {
        (!self.exited).then(|| self.child.pid())
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

    fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.child.pid(), signal);
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
        if self.expired {
            // The rest of the group has had its warning too. Before the leader is reaped: until
            // then nobody else can have its number.
            self.signal_group(Signal::KILL);
            self.linger = false;
        }
        let exit = match self.child.try_wait() {
            Ok(None) => return,
            Ok(Some(_)) if self.expired => Exit::TimedOut,
            Ok(Some(End::Status(code))) => Exit::Code(code),
            Ok(Some(End::Signal(signal))) => Exit::Signal(signal),
            // Someone else reaped it; that it ended is all that is known.
            Err(_) => Exit::Signal(0),
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
