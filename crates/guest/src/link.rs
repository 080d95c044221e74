//! What all handles of one channel share.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use machinist_wire::message::{Control, Reply, Request, decode, encode};
use machinist_wire::{Endpoint, Event, Hello, Info, LANES, Lane, Role, StreamId, VERSION};
use tokio::sync::watch;

use crate::error::{ChannelError, GuestError};

/// An agent that sends more replies than this without being asked has lost its mind.
const MAX_REPLIES: usize = 16;

/// With so many bytes unread by the agent, one more hello would not help.
const MAX_UNREAD: usize = 1024 * 1024;

/// How the channel is, for those who wait for a change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// Counts the agents that answered here: after a hand-over it is one more.
    pub(crate) agents: u32,
    pub(crate) info: Info,
    pub(crate) dead: Option<ChannelError>,
}

#[derive(Default)]
struct Incoming {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were read already.
    offset: usize,
    ended: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct StreamState {
    lanes: [Incoming; LANES],
    replies: VecDeque<Reply>,
    reply_waker: Option<Waker>,
    write_waker: Option<Waker>,
    /// The agent says nothing more on it.
    closed: bool,
}

impl StreamState {
    fn wake_all(&mut self) {
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.waker);
        let others = [&mut self.reply_waker, &mut self.write_waker];
        for waker in lanes.chain(others).filter_map(Option::take) {
            waker.wake();
        }
    }
}

pub(crate) struct State {
    pub(crate) endpoint: Endpoint,
    streams: HashMap<StreamId, StreamState>,
    driver: Option<Waker>,
    /// No handle is left: the driver may go once its last words are out.
    abandoned: bool,
    /// A hand-over inside the machine was asked for: another agent may answer.
    expects_restart: bool,
    /// Counts what shows that the machine goes on, or may have begun to.
    signs: u64,
    /// The machine was made to stand still.
    standing: bool,
    status: watch::Sender<Status>,
}

/// The driver's end.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            endpoint: Endpoint::new(Role::Host),
            streams: HashMap::new(),
            driver: None,
            abandoned: false,
            expects_restart: false,
            signs: 0,
            standing: false,
            status: watch::Sender::new(Status::default()),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way; if it did, the others still want their reason.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    pub(crate) fn set_driver(&mut self, waker: &Waker) {
        self.driver = Some(waker.clone());
    }

    pub(crate) fn is_over(&self) -> bool {
        self.dead().is_some() || self.abandoned && self.endpoint.output().is_empty()
    }

    fn dead(&self) -> Option<ChannelError> {
        self.status.borrow().dead.clone()
    }

    /// Says hello with a nonce that nobody can have seen. Not to an agent that announces itself
    /// again and again and reads nothing: hellos would pile up here.
    pub(crate) fn say_hello(&mut self) {
        if self.endpoint.output().len() > MAX_UNREAD {
            return;
        }
        let nonce = RandomState::new().hash_one(()) | 1;
        self.endpoint.hello(&Hello {
            version: VERSION,
            nonce,
            info: None,
        });
        self.wake_driver();
    }

    /// A number that changes with every sign of life.
    pub(crate) fn signs(&self) -> u64 {
        self.signs
    }

    /// Whether anybody waits for an agent that ought to answer. A shell in its place, busy with
    /// what it was asked, answers nothing else.
    pub(crate) fn is_waited_for(&self) -> bool {
        let open = self.streams.values().any(|stream| !stream.closed);
        open && !self.standing && self.endpoint.established() && !self.status.borrow().info.plain
    }

    /// Asks the agent for a sign of life.
    pub(crate) fn ask_for_sign(&mut self, token: u64) {
        self.endpoint.ping(token);
        self.wake_driver();
    }

    /// The channel is of no more use; everyone is told.
    pub(crate) fn die(&mut self, reason: ChannelError) {
        self.status.send_if_modified(|status| {
            let first = status.dead.is_none();
            if first {
                status.dead = Some(reason);
            }
            first
        });
        self.drop_streams();
        self.wake_driver();
    }

    fn drop_streams(&mut self) {
        for stream in self.streams.values_mut() {
            stream.closed = true;
            stream.wake_all();
        }
    }

    /// Everything was written: those who waited for room may try again.
    pub(crate) fn wake_writers(&mut self) {
        for stream in self.streams.values_mut() {
            if let Some(waker) = stream.write_waker.take() {
                waker.wake();
            }
        }
    }

    /// Takes bytes of the agent.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.signs += 1;
        let result = self.endpoint.receive(bytes);
        while let Some(event) = self.endpoint.next_event() {
            if let Err(error) = self.on_event(event) {
                return self.die(error);
            }
        }
        if let Err(error) = result {
            self.die(error.into());
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), ChannelError> {
        match event {
            Event::Hello(hello) => self.status.send_modify(|status| {
                status.agents += 1;
                status.info = hello.info.unwrap_or_default();
            }),
            Event::Announced { restarted } => {
                if restarted && !self.expects_restart {
                    return Err(ChannelError::Restarted);
                }
                self.drop_streams();
                // Where the answer to the earlier hello came right behind, all is well already.
                if !self.endpoint.established() {
                    self.say_hello();
                }
            }
            Event::Data {
                stream,
                lane,
                bytes,
            } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    let lane = &mut state.lanes[lane as usize];
                    lane.chunks.push_back(bytes);
                    wake(&mut lane.waker);
                }
            }
            Event::End { stream, lane } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    let lane = &mut state.lanes[lane as usize];
                    lane.ended = true;
                    wake(&mut lane.waker);
                }
            }
            Event::Message { stream, payload } => {
                let reply = decode(&payload, "reply")?;
                if let Some(state) = self.streams.get_mut(&stream) {
                    if state.replies.len() >= MAX_REPLIES {
                        return Err(ChannelError::Unexpected("too many replies"));
                    }
                    state.replies.push_back(reply);
                    wake(&mut state.reply_waker);
                }
            }
            Event::Credit { stream, .. } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    wake(&mut state.write_waker);
                }
            }
            Event::Closed { stream } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.closed = true;
                    state.wake_all();
                }
            }
            Event::Opened { .. } | Event::Pong { .. } => {}
        }
        Ok(())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The handles' end. When the last one goes, so does the driver.
pub(crate) struct Link {
    shared: Shared,
}

impl Link {
    /// A link, and what its driver needs.
    pub(crate) fn new() -> (Arc<Self>, Shared) {
        let shared = Shared::new();
        let link = Self {
            shared: shared.clone(),
        };
        (Arc::new(link), shared)
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.shared.lock().status.subscribe()
    }

    /// From now on another agent may answer on this channel.
    pub(crate) fn expect_restart(&self, expected: bool) {
        self.shared.lock().expects_restart = expected;
    }

    pub(crate) fn set_standing(&self, standing: bool) {
        let mut state = self.shared.lock();
        state.standing = standing;
        state.signs += 1;
    }

    /// Says hello once more, where nobody has answered yet.
    pub(crate) fn hello_again(&self) {
        let mut state = self.shared.lock();
        if !state.endpoint.established() {
            state.say_hello();
        }
    }

    /// Opens a stream.
    pub(crate) fn open(self: &Arc<Self>, request: &Request) -> Result<Handle, GuestError> {
        let mut state = self.shared.lock();
        if let Some(reason) = state.dead() {
            return Err(reason.into());
        }
        if !state.endpoint.established() {
            return Err(ChannelError::Restarted.into());
        }
        let id = state
            .endpoint
            .open(&encode(request))
            .ok_or(GuestError::TooLong)?;
        state.streams.insert(id, StreamState::default());
        state.wake_driver();
        Ok(Handle {
            link: Arc::clone(self),
            id,
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.abandoned = true;
        state.wake_driver();
    }
}

/// One stream. Dropping it closes it: the agent gives up what it did there.
pub(crate) struct Handle {
    link: Arc<Link>,
    id: StreamId,
}

impl Handle {
    fn with<R>(&self, act: impl FnOnce(&mut State, StreamId) -> R) -> R {
        let mut state = self.link.shared.lock();
        let result = act(&mut state, self.id);
        if !state.endpoint.output().is_empty() {
            state.wake_driver();
        }
        result
    }

    /// The next reply; an error where none can come any more.
    pub(crate) fn poll_reply(&self, cx: &Context<'_>) -> Poll<Result<Reply, ChannelError>> {
        self.with(|state, id| {
            let dead = state.dead();
            let Some(stream) = state.streams.get_mut(&id) else {
                return Poll::Ready(Err(dead.unwrap_or(ChannelError::Closed)));
            };
            if let Some(reply) = stream.replies.pop_front() {
                return Poll::Ready(Ok(reply));
            }
            if stream.closed {
                let silent = ChannelError::Unexpected("a request was left without an answer");
                return Poll::Ready(Err(dead.unwrap_or(silent)));
            }
            stream.reply_waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// The next reply, where a failure is an error.
    pub(crate) async fn reply(&self) -> Result<Reply, GuestError> {
        match std::future::poll_fn(|cx| self.poll_reply(cx)).await? {
            Reply::Failed(failure) => Err(GuestError::Refused {
                text: failure.text,
                errno: failure.errno,
            }),
            reply => Ok(reply),
        }
    }

    /// Waits for [`Reply::Done`].
    pub(crate) async fn done(&self) -> Result<(), GuestError> {
        match self.reply().await? {
            Reply::Done => Ok(()),
            _ => Err(ChannelError::Unexpected("another reply than done").into()),
        }
    }

    /// Says something on the stream.
    pub(crate) fn control(&self, control: &Control) {
        self.with(|state, id| state.endpoint.message(id, &encode(control)));
    }

    /// Bytes of a lane into `buffer`; 0 at its end.
    pub(crate) fn poll_read(
        &self,
        cx: &Context<'_>,
        lane: Lane,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|state, id| {
            let dead = state.dead();
            let Some(stream) = state.streams.get_mut(&id) else {
                return Poll::Ready(Err(broken(dead)));
            };
            let closed = stream.closed;
            let incoming = &mut stream.lanes[lane as usize];
            let Some(chunk) = incoming.chunks.front() else {
                if incoming.ended {
                    return Poll::Ready(Ok(0));
                }
                if closed {
                    return Poll::Ready(Err(broken(dead)));
                }
                incoming.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let rest = &chunk[incoming.offset..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            incoming.offset += count;
            if incoming.offset == chunk.len() {
                incoming.chunks.pop_front();
                incoming.offset = 0;
            }
            state.endpoint.consumed(id, lane, count);
            Poll::Ready(Ok(count))
        })
    }

    /// Sends bytes on the main lane, as many as may go now.
    pub(crate) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|state, id| {
            let dead = state.dead();
            let count = state.endpoint.send(id, Lane::Main, bytes);
            let Some(stream) = state.streams.get_mut(&id) else {
                return Poll::Ready(Err(broken(dead)));
            };
            if stream.closed {
                return Poll::Ready(Err(broken(dead)));
            }
            if count > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(count));
            }
            stream.write_waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Says that no more bytes will come.
    pub(crate) fn end(&self) {
        self.with(|state, id| state.endpoint.end(id, Lane::Main));
    }

    /// Closes the stream before its handle goes.
    pub(crate) fn close(&self) {
        self.with(|state, id| {
            state.endpoint.close(id);
            if let Some(stream) = state.streams.get_mut(&id) {
                stream.closed = true;
                stream.wake_all();
            }
        });
    }
}

/// A stream's end that is not the end of its bytes.
fn broken(reason: Option<ChannelError>) -> io::Error {
    match reason {
        Some(reason) => io::Error::new(io::ErrorKind::ConnectionReset, reason),
        None => io::ErrorKind::BrokenPipe.into(),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.with(|state, id| {
            state.endpoint.close(id);
            state.streams.remove(&id);
        });
    }
}
