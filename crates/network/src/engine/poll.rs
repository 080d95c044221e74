//! Waiting until a descriptor of a port is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, epoll};

use crate::switch::PortId;

/// Which of a port's descriptors it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The one frames pass through.
    Main,
    /// The one new peers come through.
    Listener,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest(epoll::EventFlags);

impl Interest {
    pub const NONE: Self = Self(epoll::EventFlags::empty());
    pub const READ: Self = Self(epoll::EventFlags::IN);
    pub const READ_WRITE: Self = Self(epoll::EventFlags::IN.union(epoll::EventFlags::OUT));
}

/// What a descriptor is ready for. Errors and hang-ups make it ready to read: reading tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub read: bool,
    pub write: bool,
}

/// Something has happened at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub port: usize,
    pub part: Part,
    pub ready: Ready,
}

/// The descriptors that are waited for.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

/// Ends a wait from another thread.
#[derive(Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

const WAKE: u64 = u64::MAX;
const EVENTS_AT_ONCE: usize = 64;

impl Poll {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &*wake, data, epoll::EventFlags::IN)?;
        Ok(Self { epoll, wake })
    }

    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Waits until something happens, and replaces `events` by what has. It may be nothing: then
    /// somebody has called [`Waker::wake`].
    pub fn wait(&self, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut raw = Vec::with_capacity(EVENTS_AT_ONCE);
        rustix::io::retry_on_intr(|| {
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut raw), None)
        })?;
        for event in raw {
            let data = event.data.u64();
            if data == WAKE {
                let mut count = [0; 8];
                // Nothing to read means that it has been read already.
                let _ = rustix::io::read(&*self.wake, &mut count);
                continue;
            }
            let flags = event.flags;
            let error = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
            events.push(Event {
                port: usize::try_from(data >> 1).unwrap_or(usize::MAX),
                part: if data & 1 == 0 {
                    Part::Main
                } else {
                    Part::Listener
                },
                ready: Ready {
                    read: flags.intersects(epoll::EventFlags::IN | error),
                    write: flags.contains(epoll::EventFlags::OUT),
                },
            });
        }
        Ok(())
    }

    /// Begins to wait for `fd`. Closing it ends that.
    pub fn add(
        &self,
        fd: BorrowedFd<'_>,
        port: PortId,
        part: Part,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token(port, part), interest.0)?)
    }

    /// Changes what `fd` is waited for.
    pub fn change(
        &self,
        fd: BorrowedFd<'_>,
        port: PortId,
        part: Part,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            token(port, part),
            interest.0,
        )?)
    }
}

impl Waker {
    pub fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes());
    }
}

fn token(port: PortId, part: Part) -> epoll::EventData {
    let listener = u64::from(part == Part::Listener);
    epoll::EventData::new_u64(((port.index() as u64) << 1) | listener)
}
