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
    /// The one that tells whether the peer is there.
    Control,
}

/// Whose descriptor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A port's, by the number of the port.
    Port(usize, Part),
    /// A door's: where clients come that will have ports of their own.
    Door(DoorId),
}

/// A door of the loop. Numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DoorId(pub usize);

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

/// Something has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub place: Place,
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
                place: Place::of(data),
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
        self.add_at(fd, Place::Port(port.index(), part), interest)
    }

    /// Changes what `fd` is waited for.
    pub fn change(
        &self,
        fd: BorrowedFd<'_>,
        port: PortId,
        part: Part,
        interest: Interest,
    ) -> io::Result<()> {
        self.change_at(fd, Place::Port(port.index(), part), interest)
    }

    /// [`Poll::add`] for any place.
    pub fn add_at(&self, fd: BorrowedFd<'_>, place: Place, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, place.token(), interest.0)?)
    }

    /// [`Poll::change`] for any place.
    pub fn change_at(
        &self,
        fd: BorrowedFd<'_>,
        place: Place,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, place.token(), interest.0)?)
    }
}

impl Waker {
    pub fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes());
    }
}

impl Place {
    fn token(self) -> epoll::EventData {
        let (index, low) = match self {
            Self::Port(port, Part::Main) => (port, 0),
            Self::Port(port, Part::Listener) => (port, 1),
            Self::Port(port, Part::Control) => (port, 2),
            Self::Door(door) => (door.0, 3),
        };
        epoll::EventData::new_u64(((index as u64) << 2) | low)
    }

    fn of(token: u64) -> Self {
        let index = usize::try_from(token >> 2).unwrap_or(usize::MAX);
        match token & 3 {
            0 => Self::Port(index, Part::Main),
            1 => Self::Port(index, Part::Listener),
            2 => Self::Port(index, Part::Control),
            _ => Self::Door(DoorId(index)),
        }
    }
}
