//! Waiting until something holds. The host gives up by closing the stream.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use machinist_wire::message::{Address, Condition, Reply};
use machinist_wire::{Blob, Endpoint, StreamId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::net::{SocketType, sockopt};

use super::connect::{Attempt, attempt, targets};
use super::listeners::listeners;
use super::{Input, Port, Step, Task, Token, Wants};
use crate::names;
use crate::server::Context;

/// Between two looks where there is no event to wait for: it grows from the first to the second.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LAST_POLL: Duration = Duration::from_millis(10);
/// Where events come, this is only for file systems that give none (9p, `/proc`).
const LAST_POLL_WITH_EVENTS: Duration = Duration::from_millis(50);

/// How long a connect to another machine may take before it counts as not open. It holds up the
/// loop, so it is short; the next attempt follows.
const CONNECT: Duration = Duration::from_millis(20);

struct Waiting {
    condition: Condition,
    /// Events of the directory that the path will appear in, or its nearest ancestor.
    inotify: Option<OwnedFd>,
    interval: Duration,
    next: Instant,
}

/// Begins to wait. None where it holds already: then nothing is watched, because closing an inotify
/// takes the kernel milliseconds.
pub(super) fn start(condition: Condition, port: &mut Port<'_>) -> Option<Box<dyn Task>> {
    if holds(&condition) {
        port.reply(&Reply::Done);
        port.close();
        return None;
    }
    let inotify = match &condition {
        Condition::Port { .. } => None,
        Condition::File(_) | Condition::Socket { .. } => {
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()
        }
    };
    Some(Box::new(Waiting {
        condition,
        inotify,
        interval: FIRST_POLL,
        // With the watch in place it looks once more.
        next: Instant::now(),
    }))
}

impl Task for Waiting {
    fn wants<'fd>(&'fd self, _: &Endpoint, _: StreamId, wants: &mut Wants<'fd>) {
        wants.at(self.next);
        if let Some(inotify) = &self.inotify {
            wants.file(inotify.as_fd(), PollFlags::IN, 0);
        }
    }

    fn ready(&mut self, port: &mut Port<'_>, token: Token, _: &mut Context) -> Step {
        let last = match (&self.condition, &self.inotify) {
            // It is there, and no event will tell when someone listens on it.
            (Condition::Socket { path, .. }, Some(_)) if path.as_path().exists() => LAST_POLL,
            (_, Some(_)) => LAST_POLL_WITH_EVENTS,
            (_, None) => LAST_POLL,
        };
        self.interval = match token {
            Token::Timer => (self.interval * 2).min(last),
            Token::File(_) => FIRST_POLL,
        };
        // Watches first, then look: what happens in between is not lost.
        self.watch();
        if holds(&self.condition) {
            port.reply(&Reply::Done);
            return Step::Finished;
        }
        self.next = Instant::now() + self.interval;
        Step::Continue
    }

    fn input(&mut self, _: &mut Port<'_>, _: Input, _: &mut Context) -> Step {
        Step::Continue
    }
}

impl Waiting {
    /// Reads off the events, and watches whatever part of the path is there by now.
    fn watch(&mut self) {
        let (Some(inotify), Condition::File(path) | Condition::Socket { path, .. }) =
            (&self.inotify, &self.condition)
        else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                continue;
            }
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        // Adding a watch twice changes nothing, so no record of them is kept.
        let nearest = path.as_path().ancestors().skip(1).find(|it| it.exists());
        if let Some(nearest) = nearest {
            let _ = inotify::add_watch(inotify, nearest, flags);
        }
    }
}

fn holds(condition: &Condition) -> bool {
    match condition {
        Condition::File(path) => path.as_path().exists(),
        Condition::Port { host, port, open } => port_is_open(host, *port) == *open,
        Condition::Socket { path, datagram } => socket_takes(path, *datagram),
    }
}

fn socket_takes(path: &Blob, datagram: bool) -> bool {
    if !path.as_path().exists() {
        return false;
    }
    let kind = match datagram {
        true => SocketType::DGRAM,
        false => SocketType::STREAM,
    };
    let Ok(targets) = targets(&Address::Unix(path.clone())) else {
        return false;
    };
    // A queue that is full belongs to someone who listens.
    targets
        .iter()
        .any(|target| matches!(attempt(target, kind), Attempt::Connected(_) | Attempt::Busy))
}

fn port_is_open(host: &str, port: u16) -> bool {
    let (local, others): (Vec<IpAddr>, Vec<IpAddr>) = names::resolve(host)
        .into_iter()
        .partition(IpAddr::is_loopback);
    if !local.is_empty() && listens(&local, port) {
        return true;
    }
    others.into_iter().any(|address| connects(address, port))
}

/// Whether there is a listener that a connection to one of the addresses reaches.
fn listens(addresses: &[IpAddr], port: u16) -> bool {
    listeners().into_iter().any(|(address, listened)| {
        listened == port
            && addresses.iter().any(|wanted| match address {
                IpAddr::V4(address) => {
                    IpAddr::V4(address) == *wanted
                        || address == Ipv4Addr::UNSPECIFIED && wanted.is_ipv4()
                }
                // The unspecified address of IPv6 takes IPv4 connections as well.
                IpAddr::V6(address) => {
                    address == Ipv6Addr::UNSPECIFIED
                        || IpAddr::V6(address) == *wanted
                        || address.to_ipv4_mapped().map(IpAddr::V4) == Some(*wanted)
                }
            })
    })
}

fn connects(address: IpAddr, port: u16) -> bool {
    let target = super::connect::Target::Tcp((address, port).into());
    match attempt(&target, SocketType::STREAM) {
        Attempt::Connected(_) => true,
        Attempt::Pending(socket) => {
            let timeout = Timespec::try_from(CONNECT).ok();
            let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
            matches!(poll(&mut fds, timeout.as_ref()), Ok(1))
                && matches!(sockopt::socket_error(&socket), Ok(Ok(())))
        }
        Attempt::Busy => false,
        Attempt::Failed(errno) => errno == Errno::ISCONN,
    }
}
