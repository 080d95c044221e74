//! The socket that a virtual machine's network backend connects to.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use machinist_sys::outgoing::is_read;
use machinist_sys::packet::{FRAMES_AT_ONCE, Frame};
use tracing::{debug, warn};

use super::{Context, Count};
use crate::engine::{Interest, Part, Ready};
use crate::offload::{COMPLETE, finish};
use crate::stream::{FrameQueue, FrameReader};

/// At most so many bytes wait for a virtual machine: at 100 Mbit/s, a tenth of a second's worth.
const BOUND: usize = 1024 * 1024;

/// Far more than a virtual machine that stands still has left to say.
const MOST_READS: usize = 64;

#[derive(Debug)]
pub(crate) struct SocketDevice {
    listener: UnixListener,
    path: PathBuf,
    peer: Option<UnixStream>,
    reader: FrameReader,
    queue: FrameQueue,
}

impl SocketDevice {
    /// Listens at `path`, where a socket that an earlier process left is replaced.
    pub fn listen(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            peer: None,
            reader: FrameReader::default(),
            queue: FrameQueue::new(BOUND),
        })
    }

    pub fn register(&self, context: Context<'_>) -> io::Result<()> {
        let fd = self.listener.as_fd();
        context
            .poll
            .add(fd, context.port, Part::Listener, Interest::READ)
    }

    pub fn ready(
        &mut self,
        context: Context<'_>,
        part: Part,
        ready: Ready,
        deliver: &mut dyn FnMut(&[Frame<'_>]),
    ) {
        if part == Part::Listener {
            self.accept(context);
            return;
        }
        if ready.write {
            self.flush(context);
        }
        if ready.read
            && let Err(error) = self.receive(deliver)
        {
            self.disconnect(context, &error);
        }
    }

    /// Whether the virtual machine has taken all that was written to it.
    pub fn is_taken(&self) -> bool {
        let peer = self.peer.as_ref();
        peer.is_none_or(|peer| is_read(peer).unwrap_or(true))
    }

    /// Reads all that the virtual machine has sent, as far as that ends.
    pub fn receive_all(&mut self, context: Context<'_>, deliver: &mut dyn FnMut(&[Frame<'_>])) {
        for _ in 0..MOST_READS {
            match self.receive(deliver) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.disconnect(context, &error),
            }
        }
    }

    /// The frames that wait for the virtual machine.
    pub fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        self.queue.frames()
    }

    /// Goes on after a standstill: takes the virtual machine that waits, if one does, and gives it
    /// what has waited for it, and then `frames`.
    pub fn go_on<'f>(&mut self, context: Context<'_>, frames: impl Iterator<Item = &'f [u8]>) {
        self.accept(context);
        if self.peer.is_none() {
            context.tally.dropped(Count::Nobody, frames.count());
            return;
        }
        for frame in frames {
            if self.queue.push(frame) {
                context.tally.sent(frame.len());
            } else {
                context.tally.dropped(Count::NoRoom, 1);
            }
        }
        self.write(context);
        if !self.queue.pending().is_empty() {
            self.set_interest(context, Interest::READ_WRITE);
        }
    }

    /// Takes a peer, if there is none. Others wait until it is gone.
    fn accept(&mut self, context: Context<'_>) {
        if self.peer.is_some() {
            return;
        }
        let Ok((peer, _)) = self.listener.accept() else {
            return;
        };
        let polled = peer.set_nonblocking(true).and_then(|()| {
            let fd = peer.as_fd();
            context
                .poll
                .add(fd, context.port, Part::Main, Interest::READ)
        });
        if let Err(error) = polled {
            warn!(port = context.name, %error, "cannot poll the virtual machine's connection");
            return;
        }
        debug!(port = context.name, "the virtual machine has connected");
        self.reader.clear();
        self.queue.clear();
        self.peer = Some(peer);
        self.listen_for_others(context, Interest::NONE);
    }

    fn disconnect(&mut self, context: Context<'_>, why: &io::Error) {
        if why.kind() == io::ErrorKind::InvalidData {
            warn!(port = context.name, error = %why, "closed the connection");
        } else {
            debug!(port = context.name, reason = %why, "the virtual machine has disconnected");
        }
        // Closing takes it out of the poll, too.
        self.peer = None;
        self.queue.clear();
        self.listen_for_others(context, Interest::READ);
    }

    /// Reads once, so that a loud machine has its turn and no more, and hands out whole frames.
    /// False where there was nothing.
    fn receive(&mut self, deliver: &mut dyn FnMut(&[Frame<'_>])) -> io::Result<bool> {
        let Some(peer) = &mut self.peer else {
            return Ok(false);
        };
        match peer.read(self.reader.room()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.reader.fill(count),
            Err(error) if is_not_now(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut at = 0;
        loop {
            let mut places = Vec::with_capacity(FRAMES_AT_ONCE);
            let end = loop {
                let next = self.reader.next(at);
                match next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)) {
                    Ok(Some(place)) => {
                        at = place.end;
                        places.push(place);
                    }
                    Ok(None) => break Some(Ok(true)),
                    // The frames before it are good.
                    Err(error) => break Some(Err(error)),
                }
                if places.len() == FRAMES_AT_ONCE {
                    break None;
                }
            };
            let frames: Vec<Frame<'_>> = places
                .into_iter()
                .map(|place| Frame {
                    header: &COMPLETE,
                    bytes: self.reader.frame(place),
                })
                .collect();
            deliver(&frames);
            if let Some(result) = end {
                self.reader.consume(at);
                return result;
            }
        }
    }

    pub fn send(&mut self, context: Context<'_>, frames: &[Frame<'_>], scratch: &mut Vec<u8>) {
        if self.peer.is_none() {
            context.tally.dropped(Count::Nobody, frames.len());
            return;
        }
        let had_to_wait = !self.queue.pending().is_empty();
        for frame in frames.iter().filter(|frame| context.fits(frame)) {
            let queue = &mut self.queue;
            let finished = finish(frame.bytes, frame.header, scratch, |bytes| {
                if queue.push(bytes) {
                    context.tally.sent(bytes.len());
                } else {
                    context.tally.dropped(Count::NoRoom, 1);
                }
            });
            if finished.is_err() {
                context.tally.dropped(Count::Refused, 1);
            }
        }
        if had_to_wait || context.still {
            return;
        }
        self.write(context);
        if !self.queue.pending().is_empty() {
            self.set_interest(context, Interest::READ_WRITE);
        }
    }

    fn flush(&mut self, context: Context<'_>) {
        self.write(context);
        if self.queue.pending().is_empty() {
            self.set_interest(context, Interest::READ);
        }
    }

    /// Writes as much as the peer takes now.
    fn write(&mut self, context: Context<'_>) {
        let Some(peer) = &mut self.peer else {
            return;
        };
        while !self.queue.pending().is_empty() {
            match peer.write(self.queue.pending()) {
                Ok(count) => self.queue.advance(count),
                Err(error) if is_not_now(&error) => return,
                Err(error) => {
                    self.disconnect(context, &error);
                    return;
                }
            }
        }
    }

    fn set_interest(&self, context: Context<'_>, interest: Interest) {
        if let Some(peer) = &self.peer {
            let fd = peer.as_fd();
            // It can only fail for descriptors that are not polled, and this one is.
            drop(context.poll.change(fd, context.port, Part::Main, interest));
        }
    }

    fn listen_for_others(&self, context: Context<'_>, interest: Interest) {
        let fd = self.listener.as_fd();
        // As above.
        drop(
            context
                .poll
                .change(fd, context.port, Part::Listener, interest),
        );
    }
}

impl Drop for SocketDevice {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        drop(fs::remove_file(&self.path));
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
