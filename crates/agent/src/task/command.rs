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
use crate::spawn::{self, Streams, failure};

/// Between the polite and the other signal when a command's time is over.
const GRACE: Duration = Duration::from_millis(500);

/// A command that takes longer is told to have started before it ends.
const SHORT: Duration = Duration::from_millis(20);

/// So often a command's outputs are read when it has ended: a pipe is empty by then.
const LAST_READS: usize = 4;

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
    young: Option<Young>,
}

/// What waits while a command may be a short one, so that all there is to tell of such is told at once.
struct Young {
    /// The first word, if it has not been said: it comes before any other.
    started: Option<Reply>,
    /// The command's ends of its outputs. While they are open here too, its end is one event, not one
    /// for each of them and one more.
    _outputs: [OwnedFd; 2],
    until: Instant,
}

/// Starts a command for the host.
pub(super) fn start(
    request: &Command,
    port: &mut Port<'_>,
    context: &mut Context,
) -> Result<Box<dyn Task>, Failure> {
    let login = spawn::login(request, &mut context.logins)?;
    let null = match &mut context.null {
        Some(null) => null,
        none => {
            none.insert(spawn::null().map_err(|error| failure("cannot open /dev/null", &error))?)
        }
    };
    let (child, streams, theirs) = spawn::spawn(request, login, null, &mut context.pipes)?;
    let Streams {
        stdin,
        stdout,
        stderr,
        terminal,
    } = streams;
    let started = Reply::Started {
        pid: child.pid().as_raw_nonzero().get().unsigned_abs(),
    };
    // Who has something to say to it wants to know at once.
    let spoken_to = request.stdin || request.pty.is_some();
    let young = if spoken_to {
        port.reply(&started);
        None
    } else {
        Some(Young {
            started: Some(started),
            _outputs: theirs.outputs(),
            until: Instant::now() + SHORT,
        })
    };
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
        young,
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
        if let Some(young) = &self.young {
            wants.at(young.until);
        }
    }

    fn ready(&mut self, port: &mut Port<'_>, token: Token, context: &mut Context) -> Step {
        match token {
            Token::File(EXIT) => self.reap(port, context),
            Token::File(STDIN) => self.feed(port),
            Token::File(STDOUT) => _ = self.pump(port, Lane::Main, context),
            Token::File(_) => _ = self.pump(port, Lane::Error, context),
            Token::Timer => {
                if let Some(young) = &self.young
                    && young.until <= Instant::now()
                {
                    self.come_of_age(port);
                }
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

    /// Says that it has started, where that was not said.
    fn begin(&mut self, port: &mut Port<'_>) {
        if let Some(started) = self.young.as_mut().and_then(|young| young.started.take()) {
            port.reply(&started);
        }
    }

    /// It has ended, or is no short one: nothing waits for that any more.
    fn come_of_age(&mut self, port: &mut Port<'_>) {
        self.begin(port);
        self.young = None;
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

    fn reap(&mut self, port: &mut Port<'_>, context: &mut Context) {
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
        self.come_of_age(port);
        // What it printed last is there. More than a pipe holds is somebody else's, and has time.
        for lane in [Lane::Main, Lane::Error] {
            let mut reads = 0..LAST_READS;
            while reads.next().is_some() && self.pump(port, lane, context) {}
        }
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

    /// Sends on what the command printed, as much as the host takes. False: there is no more now.
    fn pump(&mut self, port: &mut Port<'_>, lane: Lane, context: &mut Context) -> bool {
        let Some(output) = &self.outputs[lane as usize] else {
            return false;
        };
        let buffer = &mut context.buffer;
        buffer.resize(machinist_wire::MAX_DATA, 0);
        let room = port.capacity(lane).min(buffer.len());
        if room == 0 {
            return false;
        }
        let read = rustix::io::read(output, &mut buffer[..room]);
        self.begin(port);
        let slot = &mut self.outputs[lane as usize];
        match read {
            Ok(count) if count > 0 => {
                port.send(lane, &context.buffer[..count]);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) if !self.exited || self.linger => {}
            // The command ended, and someone still holds its output.
            Err(Errno::AGAIN) => {
                context.sinks.extend(slot.take());
                port.end(lane);
            }
            // End of file; a terminal says it by an error.
            _ => {
                context.used.extend(slot.take());
                port.end(lane);
            }
        }
        false
    }
}
