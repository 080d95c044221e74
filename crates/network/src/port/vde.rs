//! A client of the VDE protocol: its control connection, and the datagram socket that frames pass
//! through once it has asked for one.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machinist_sys::packet::{Batch, Frame};
use tracing::{debug, warn};

use super::{Context, Count, arrived};
use crate::door::PORT;
use crate::engine::{Interest, Part, Ready};
use crate::offload::finish;
use crate::vde::{self, Request, RequestReader};

/// At most so many bytes wait for a client that does not read, besides what waits in the kernel.
const BOUND: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct VdeDevice {
    control: UnixStream,
    directory: Arc<Path>,
    /// Counted up by the door; no two clients of a directory have the same.
    serial: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It has not asked for anything yet.
    Asking(RequestReader),
    Plugged(Plug),
    /// It has gone away, or was sent away.
    Over,
}

impl VdeDevice {
    /// One for a client that has connected to the `ctl` socket in `directory`.
    pub fn new(control: UnixStream, directory: Arc<Path>, serial: u64) -> io::Result<Self> {
        control.set_nonblocking(true)?;
        Ok(Self {
            control,
            directory,
            serial,
            state: State::Asking(RequestReader::default()),
        })
    }

    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it has still to say what it wants.
    pub const fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    /// Whether the port is to be removed.
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub fn register(&self, context: Context<'_>) -> io::Result<()> {
        let fd = self.control.as_fd();
        context
            .poll
            .add(fd, context.port, Part::Control, Interest::READ)
    }

    pub fn ready(
        &mut self,
        context: Context<'_>,
        part: Part,
        ready: Ready,
        batch: &mut Batch,
        deliver: &mut dyn FnMut(&[Frame<'_>]),
    ) {
        if part == Part::Control {
            self.listen(context);
            return;
        }
        let State::Plugged(plug) = &mut self.state else {
            return;
        };
        if ready.write {
            let flushed = plug.flush(context);
            self.notice(context, flushed);
        }
        // An error is told once, and is about what is past.
        if ready.read
            && let State::Plugged(plug) = &self.state
            && batch.receive_datagrams(plug.socket.as_fd()).is_ok()
        {
            arrived::hand_out(context, batch, deliver);
        }
    }

    /// Reads what the client says, once, so that a loud one has its turn and no more.
    fn listen(&mut self, context: Context<'_>) {
        let State::Asking(reader) = &mut self.state else {
            // Nothing it says now means anything, but its silence does.
            match self.control.read(&mut [0; 4096]) {
                Ok(count) if count > 0 => {}
                Err(error) if is_not_now(&error) => {}
                _ => self.end(context, "it has disconnected"),
            }
            return;
        };
        match self.control.read(reader.room()) {
            Ok(count) if count > 0 => reader.fill(count),
            Err(error) if is_not_now(&error) => return,
            _ => return self.end(context, "it has disconnected without a request"),
        }
        match reader.request() {
            Ok(None) => {}
            Ok(Some(request)) => match self.plug(context, &request) {
                Ok(plug) => {
                    let (client, directory) = (&request.description, self.directory.display());
                    debug!(%directory, ?client, "a VDE client has a port");
                    self.state = State::Plugged(plug);
                }
                Err(error) => {
                    let (client, path) = (&request.description, request.path.display());
                    warn!(%path, ?client, %error, "cannot give a VDE client a port");
                    self.end(context, "it got no port");
                }
            },
            Err(error) => {
                warn!(directory = %self.directory.display(), %error, "sent a client away");
                self.end(context, "it made no request");
            }
        }
    }

    fn plug(&self, context: Context<'_>, request: &Request) -> io::Result<Plug> {
        let path = self.directory.join(format!("{PORT}{}", self.serial));
        let answer = vde::answer(&path).ok_or(io::ErrorKind::InvalidFilename)?;
        let plug = Plug::new(path, request, &self.directory)?;
        context.poll.add(
            plug.socket.as_fd(),
            context.port,
            Part::Main,
            Interest::READ,
        )?;
        // Nothing was written before, so there is room for it.
        (&self.control).write_all(&answer)?;
        Ok(plug)
    }

    fn end(&mut self, context: Context<'_>, why: &str) {
        debug!(
            port = context.name,
            client = self.serial,
            why,
            "a VDE client is gone"
        );
        // Closing its sockets takes them out of the poll, too.
        self.state = State::Over;
    }

    pub fn send(&mut self, context: Context<'_>, frames: &[Frame<'_>], scratch: &mut Vec<u8>) {
        // Who has no port yet hears nothing, and misses nothing.
        let State::Plugged(plug) = &mut self.state else {
            return;
        };
        let sent = plug.send(context, frames, scratch);
        self.notice(context, sent);
    }

    /// Takes leave of a client whose datagram socket is gone: the loop hears of the shutdown, and
    /// comes to [`VdeDevice::listen`].
    fn notice(&self, context: Context<'_>, result: Result<(), Gone>) {
        if result.is_err() && self.control.shutdown(Shutdown::Both).is_err() {
            debug!(port = context.name, "a VDE client is gone already");
        }
    }
}

/// The client's datagram socket is closed.
#[derive(Debug)]
struct Gone;

/// Both ends of the way that frames take.
#[derive(Debug)]
struct Plug {
    socket: UnixDatagram,
    path: PathBuf,
    /// The client's end, where it lies in our directory: we remove it if the client cannot.
    theirs: Option<PathBuf>,
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    closed: bool,
}

impl Plug {
    fn new(path: PathBuf, request: &Request, directory: &Path) -> io::Result<Self> {
        let theirs = &request.path;
        let mut plug = Self {
            socket: UnixDatagram::bind(&path)?,
            path,
            theirs: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            closed: false,
        };
        fs::set_permissions(&plug.path, Permissions::from_mode(0o600))?;
        plug.socket.set_nonblocking(true)?;
        // From now on nobody else can send to it. The directory is the caller's alone, so whoever
        // comes as far as this could send to that socket itself.
        plug.socket.connect(theirs)?;
        plug.theirs = is_clients_own(theirs, directory).then(|| theirs.clone());
        Ok(plug)
    }

    fn send(
        &mut self,
        context: Context<'_>,
        frames: &[Frame<'_>],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let had_to_wait = !self.waiting.is_empty();
        for frame in frames.iter().filter(|frame| context.fits(frame)) {
            let finished = finish(frame.bytes, frame.header, scratch, |bytes| {
                self.send_one(context, bytes);
            });
            if finished.is_err() {
                context.tally.dropped(Count::Refused, 1);
            }
        }
        if !had_to_wait && !self.waiting.is_empty() {
            self.set_interest(context, Interest::READ_WRITE);
        }
        if self.closed { Err(Gone) } else { Ok(()) }
    }

    fn send_one(&mut self, context: Context<'_>, bytes: &[u8]) {
        if self.closed {
            context.tally.dropped(Count::Nobody, 1);
            return;
        }
        // Those that wait go first.
        if self.waiting.is_empty() {
            match self.socket.send(bytes) {
                Ok(_) => return context.tally.sent(bytes.len()),
                Err(error) if is_not_now(&error) => {}
                Err(error) => return self.failed(context, &error),
            }
        }
        if self.waiting_bytes + bytes.len() > BOUND {
            context.tally.dropped(Count::NoRoom, 1);
            return;
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes.into());
    }

    fn flush(&mut self, context: Context<'_>) -> Result<(), Gone> {
        while let Some(bytes) = self.waiting.front() {
            match self.socket.send(bytes) {
                Ok(_) => context.tally.sent(bytes.len()),
                Err(error) if is_not_now(&error) => return Ok(()),
                Err(error) => self.failed(context, &error),
            }
            if let Some(done) = self.waiting.pop_front() {
                self.waiting_bytes -= done.len();
            }
        }
        self.set_interest(context, Interest::READ);
        if self.closed { Err(Gone) } else { Ok(()) }
    }

    /// Counts a frame that the kernel would not take, and notes whether it ever will.
    fn failed(&mut self, context: Context<'_>, error: &io::Error) {
        self.closed = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected
        );
        let why = if self.closed {
            Count::Nobody
        } else {
            Count::Refused
        };
        context.tally.dropped(why, 1);
    }

    fn set_interest(&self, context: Context<'_>, interest: Interest) {
        let fd = self.socket.as_fd();
        // It can only fail for descriptors that are not polled, and this one is.
        drop(context.poll.change(fd, context.port, Part::Main, interest));
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        // Either may have been removed already.
        drop(fs::remove_file(&self.path));
        if let Some(theirs) = &self.theirs {
            drop(fs::remove_file(theirs));
        }
    }
}

/// Whether a socket lies where clients make theirs, and is called as they call them.
fn is_clients_own(path: &Path, directory: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    path.parent() == Some(directory) && name.as_bytes().starts_with(b".")
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
