//! What the agent does for the host, one task for each stream.

mod command;
mod connect;
mod get;
mod listeners;
mod put;
mod wait;

pub(crate) use listeners::listeners;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use machinist_wire::message::{Failure, Reply, Request, encode};
use machinist_wire::{Endpoint, Lane, StreamId};
use rustix::event::PollFlags;
use rustix::process::{Pid, WaitOptions};

use crate::server::Context;

/// Why a task is called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// One of its files is ready; the number is its own.
    File(u8),
    /// The time that it asked for has come.
    Timer,
}

/// What a task waits for.
#[derive(Default)]
pub(crate) struct Wants<'fd> {
    pub(crate) fds: Vec<(BorrowedFd<'fd>, PollFlags, Token)>,
    pub(crate) at: Option<Instant>,
}

impl<'fd> Wants<'fd> {
    pub(crate) fn file(&mut self, fd: BorrowedFd<'fd>, flags: PollFlags, number: u8) {
        self.fds.push((fd, flags, Token::File(number)));
    }

    pub(crate) fn at(&mut self, at: Instant) {
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn at_once(&mut self) {
        self.at(Instant::now());
    }
}

/// What came from the host on the task's stream.
#[derive(Debug)]
pub(crate) enum Input {
    Message(Vec<u8>),
    Data(Vec<u8>),
    End,
    Credit,
}

/// Whether a task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Continue,
    Finished,
}

/// Something that is done for the host.
pub(crate) trait Task {
    /// Says what it waits for.
    fn wants<'fd>(&'fd self, endpoint: &Endpoint, stream: StreamId, wants: &mut Wants<'fd>);
    /// Something that it waited for is there.
    fn ready(&mut self, port: &mut Port<'_>, token: Token, context: &mut Context) -> Step;
    /// Something came from the host.
    fn input(&mut self, port: &mut Port<'_>, input: Input, context: &mut Context) -> Step;
    /// The host does not want it any more.
    fn abandon(self: Box<Self>, _context: &mut Context) {}
    /// The process whose end it waits for.
    fn child(&self) -> Option<Pid> {
        None
    }
}

/// A task's end of its stream.
pub(crate) struct Port<'a> {
    endpoint: &'a mut Endpoint,
    stream: StreamId,
}

impl<'a> Port<'a> {
    pub(crate) fn new(endpoint: &'a mut Endpoint, stream: StreamId) -> Self {
        Self { endpoint, stream }
    }

    pub(crate) fn capacity(&self, lane: Lane) -> usize {
        self.endpoint.capacity(self.stream, lane, usize::MAX)
    }

    pub(crate) fn send(&mut self, lane: Lane, bytes: &[u8]) -> usize {
        self.endpoint.send(self.stream, lane, bytes)
    }

    pub(crate) fn end(&mut self, lane: Lane) {
        self.endpoint.end(self.stream, lane);
    }

    pub(crate) fn consumed(&mut self, bytes: usize) {
        self.endpoint.consumed(self.stream, Lane::Main, bytes);
    }

    pub(crate) fn reply(&mut self, reply: &Reply) {
        self.endpoint.message(self.stream, &encode(reply));
    }

    /// The only word there is.
    pub(crate) fn finish(&mut self, result: Result<Reply, Failure>) {
        self.reply(&result.unwrap_or_else(Reply::Failed));
        self.close();
    }

    /// The last word where something went wrong.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.reply(&Reply::Failed(failure));
        self.close();
    }

    pub(crate) fn close(&mut self) {
        self.endpoint.close(self.stream);
    }
}

/// Starts what a request asks for. None where it is over already; the port then said why.
pub(crate) fn start(
    request: Request,
    port: &mut Port<'_>,
    context: &mut Context,
) -> Option<Box<dyn Task>> {
    let task: Result<Box<dyn Task>, Failure> = match request {
        Request::Run(command) => command::start(&command, port, context),
        Request::Connect(address) => connect::start(&address),
        Request::Wait(condition) => return wait::start(condition, port),
        Request::Put(put) => put::start(&put),
        Request::Get { path } => get::start(&path),
        // The server's own.
        Request::Configure(_) | Request::Power(_) | Request::Settle { .. } | Request::Renew(_) => {
            return None;
        }
    };
    match task {
        Ok(task) => Some(task),
        Err(failure) => {
            port.fail(failure);
            None
        }
    }
}

/// As PID 1: takes leave of ended processes that were left to it, and that no task waits for.
pub(crate) fn reap_strangers(tasks: &BTreeMap<StreamId, Box<dyn Task>>) {
    let children = std::fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
    for pid in children.split_whitespace() {
        let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        if !tasks.values().any(|task| task.child() == Some(pid)) {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}
