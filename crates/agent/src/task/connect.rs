//! A connection to a socket inside the guest.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use machinist_wire::message::{Address, Failure, Reply};
use machinist_wire::{Endpoint, Lane, MAX_DATA, StreamId};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, sockopt,
};

use super::{Input, Port, Step, Task, Token, Wants};
use crate::names;
use crate::server::Context;
use crate::spawn::failure;

/// A Unix socket whose queue is full gives no event when it is not any more.
const RETRY: Duration = Duration::from_millis(5);

/// Where to connect.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Unix(SocketAddrUnix),
    Tcp(SocketAddr),
}

/// What became of an attempt to connect.
pub(super) enum Attempt {
    Connected(OwnedFd),
    /// Writable once it is decided.
    Pending(OwnedFd),
    /// To be tried again.
    Busy,
    Failed(Errno),
}

/// All that an address may mean, best first.
pub(super) fn targets(address: &Address) -> Result<Vec<Target>, Failure> {
    match address {
        Address::Unix(path) => {
            let address = SocketAddrUnix::new(path.as_os_str())
                .map_err(|errno| failure(format!("cannot connect to {path}"), &errno.into()))?;
            Ok(vec![Target::Unix(address)])
        }
        Address::Tcp { host, port } => {
            let targets: Vec<Target> = names::resolve(host)
                .into_iter()
                .map(|address| Target::Tcp(SocketAddr::new(address, *port)))
                .collect();
            if targets.is_empty() {
                return Err(Failure {
                    text: format!("{host} is neither an address nor in /etc/hosts"),
                    errno: 0,
                });
            }
            Ok(targets)
        }
    }
}

/// Begins to connect.
pub(super) fn attempt(target: &Target, kind: SocketType) -> Attempt {
    let family = match target {
        Target::Unix(_) => AddressFamily::UNIX,
        Target::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Target::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = match socket_with(family, kind, flags, None) {
        Ok(socket) => socket,
        Err(errno) => return Attempt::Failed(errno),
    };
    let result = match target {
        Target::Unix(address) => connect(&socket, address),
        Target::Tcp(address) => connect(&socket, address),
    };
    match result {
        Ok(()) => Attempt::Connected(socket),
        Err(Errno::INPROGRESS) => Attempt::Pending(socket),
        Err(Errno::AGAIN) => Attempt::Busy,
        Err(errno) => Attempt::Failed(errno),
    }
}

enum State {
    /// Between two attempts.
    Resting(Instant),
    Connecting(OwnedFd),
    Connected(OwnedFd),
}

struct Connection {
    name: String,
    targets: VecDeque<Target>,
    state: State,
    /// What the host sent and the socket has not taken.
    input: VecDeque<u8>,
    input_ended: bool,
    /// Each direction's end has been passed on.
    sent_end: bool,
    got_end: bool,
}

pub(super) fn start(address: &Address) -> Result<Box<dyn Task>, Failure> {
    let name = match address {
        Address::Unix(path) => path.to_string(),
        Address::Tcp { host, port } => format!("{host}:{port}"),
    };
    Ok(Box::new(Connection {
        name,
        targets: targets(address)?.into(),
        state: State::Resting(Instant::now()),
        input: VecDeque::new(),
        input_ended: false,
        sent_end: false,
        got_end: false,
    }))
}

impl Task for Connection {
    fn wants<'fd>(&'fd self, endpoint: &Endpoint, stream: StreamId, wants: &mut Wants<'fd>) {
        match &self.state {
            State::Resting(until) => wants.at(*until),
            State::Connecting(socket) => wants.file(socket.as_fd(), PollFlags::OUT, 0),
            State::Connected(socket) => {
                let mut flags = PollFlags::empty();
                flags.set(
                    PollFlags::IN,
                    !self.got_end && endpoint.capacity(stream, Lane::Main, 1) > 0,
                );
                flags.set(PollFlags::OUT, !self.input.is_empty());
                if !flags.is_empty() {
                    wants.file(socket.as_fd(), flags, 0);
                }
            }
        }
    }

    fn ready(&mut self, port: &mut Port<'_>, token: Token, _: &mut Context) -> Step {
        match (&self.state, token) {
            (State::Resting(_), _) => self.try_next(port),
            (State::Connecting(_), _) => self.settle(port),
            (State::Connected(_), _) => {
                self.receive(port);
                self.flush(port)
            }
        }
    }

    fn input(&mut self, port: &mut Port<'_>, input: Input, _: &mut Context) -> Step {
        match input {
            Input::Data(bytes) if self.sent_end => port.consumed(bytes.len()),
            Input::Data(bytes) => self.input.extend(bytes),
            Input::End => self.input_ended = true,
            Input::Credit => self.receive(port),
            Input::Message(_) => {}
        }
        self.flush(port)
    }
}

impl Connection {
    fn try_next(&mut self, port: &mut Port<'_>) -> Step {
        let Some(target) = self.targets.front() else {
            return Step::Finished;
        };
        match attempt(target, SocketType::STREAM) {
            Attempt::Connected(socket) => return self.connected(port, socket),
            Attempt::Pending(socket) => self.state = State::Connecting(socket),
            Attempt::Busy => self.state = State::Resting(Instant::now() + RETRY),
            Attempt::Failed(errno) => return self.failed(port, errno),
        }
        Step::Continue
    }

    /// One of the targets did not work; the last one's error is told.
    fn failed(&mut self, port: &mut Port<'_>, errno: Errno) -> Step {
        self.targets.pop_front();
        if self.targets.is_empty() {
            let text = format!("cannot connect to {}", self.name);
            port.fail(failure(text, &errno.into()));
            return Step::Finished;
        }
        self.state = State::Resting(Instant::now());
        Step::Continue
    }

    fn settle(&mut self, port: &mut Port<'_>) -> Step {
        let rest = State::Resting(Instant::now());
        let State::Connecting(socket) = std::mem::replace(&mut self.state, rest) else {
            return Step::Continue;
        };
        match sockopt::socket_error(&socket) {
            Ok(Ok(())) => self.connected(port, socket),
            Ok(Err(errno)) | Err(errno) => self.failed(port, errno),
        }
    }

    fn connected(&mut self, port: &mut Port<'_>, socket: OwnedFd) -> Step {
        // Small messages travel at once; for a Unix socket there is nothing to set.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        self.state = State::Connected(socket);
        port.reply(&Reply::Done);
        self.flush(port)
    }

    fn receive(&mut self, port: &mut Port<'_>) {
        let State::Connected(socket) = &self.state else {
            return;
        };
        let mut buffer = [0; MAX_DATA];
        let room = port.capacity(Lane::Main).min(buffer.len());
        if room == 0 || self.got_end {
            return;
        }
        match rustix::io::read(socket, &mut buffer[..room]) {
            Ok(count) if count > 0 => {
                port.send(Lane::Main, &buffer[..count]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => {
                self.got_end = true;
                port.end(Lane::Main);
            }
        }
    }

    /// Writes what the socket takes, and passes the end on behind it.
    fn flush(&mut self, port: &mut Port<'_>) -> Step {
        let State::Connected(socket) = &self.state else {
            return Step::Continue;
        };
        while !self.input.is_empty() {
            match rustix::io::write(socket, self.input.as_slices().0) {
                Ok(count) => {
                    self.input.drain(..count);
                    port.consumed(count);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Step::Continue,
                Err(_) => {
                    port.consumed(self.input.len());
                    self.input.clear();
                    self.input_ended = true;
                }
            }
        }
        if self.input_ended && !self.sent_end {
            self.sent_end = true;
            let _ = shutdown(socket, Shutdown::Write);
        }
        match self.sent_end && self.got_end {
            true => Step::Finished,
            false => Step::Continue,
        }
    }
}
