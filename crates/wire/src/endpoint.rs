//! One end of a channel, as a state machine without IO.

use std::collections::{BTreeMap, VecDeque};

use crate::ProtocolError;
use crate::frame::{Header, Kind, MAX_PAYLOAD, MAX_REQUEST};
use crate::hello::{Hello, VERSION};
use crate::link::{Link, Unit};
use crate::stream::{Lane, Stream, StreamId};

/// While this many bytes wait to be written, data is not accepted from anyone.
const OUTPUT_LIMIT: usize = 512 * 1024;

/// Which end of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Host,
    /// Answers on them.
    Agent,
}

/// What happened at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The two ends found each other; on the agent's side that is a fresh start: streams that were
    /// there are gone. (For an agent to answer, for a host the answer.)
    Hello(Hello),
    /// To the host: an agent is there that has not heard the host's last hello. Where the channel
    /// was in use before, that agent began anew, and all streams are gone.
    Announced {
        /// Whether streams were possible until now.
        restarted: bool,
    },
    /// To the agent: the host opened a stream.
    Opened {
        /// Its number.
        stream: StreamId,
        /// The request.
        payload: Vec<u8>,
    },
    /// A message on a stream.
    Message {
        /// Its number.
        stream: StreamId,
        /// The message.
        payload: Vec<u8>,
    },
    /// Bytes on a lane. Say [`Endpoint::consumed`] when they are used up.
    Data {
        /// The stream.
        stream: StreamId,
        /// The lane.
        lane: Lane,
        /// At least one byte.
        bytes: Vec<u8>,
    },
    /// No more bytes will come on this lane.
    End {
        /// The stream.
        stream: StreamId,
        /// The lane.
        lane: Lane,
    },
    /// More may be sent on this lane.
    Credit {
        /// The stream.
        stream: StreamId,
        /// The lane.
        lane: Lane,
    },
    /// The other end closed the stream: it is gone.
    Closed {
        /// Its number.
        stream: StreamId,
    },
    /// The answer to a ping.
    Pong {
        /// As given to [`Endpoint::ping`].
        token: u64,
    },
}

/// One end of a channel.
#[derive(Debug)]
pub struct Endpoint {
    role: Role,
    link: Link,
    streams: BTreeMap<StreamId, Stream>,
    last: StreamId,
    /// The nonce of the host's latest hello.
    nonce: u64,
    established: bool,
    events: VecDeque<Event>,
    output: Vec<u8>,
    /// Bytes of `output` that were written already.
    written: usize,
    /// What nobody waits for: it goes along with the next frame.
    later: Vec<u8>,
}

impl Endpoint {
    /// An end that has neither said nor heard a hello.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let limit = match role {
            Role::Host => MAX_PAYLOAD,
            Role::Agent => MAX_REQUEST,
        };
        Self {
            role,
            link: Link::new(limit),
            streams: BTreeMap::new(),
            last: 0,
            nonce: 0,
            established: false,
            events: VecDeque::new(),
            output: Vec::new(),
            written: 0,
            later: Vec::new(),
        }
    }

    /// Says hello. A host gives a nonce that it has not used before on this channel (not 0), and
    /// from now on takes only the answer to it; all streams are gone.
    pub fn hello(&mut self, hello: &Hello) {
        if self.role == Role::Host {
            self.nonce = hello.nonce;
            self.forget();
        }
        self.output.extend_from_slice(&hello.encode());
    }

    /// Whether hellos were exchanged, so that streams are possible.
    #[must_use]
    pub fn established(&self) -> bool {
        self.established
    }

    fn forget(&mut self) {
        self.streams.clear();
        self.later.clear();
        self.last = 0;
        self.established = false;
        self.link.synchronised(false);
    }

    /// Takes bytes that arrived, and makes events of them.
    ///
    /// # Errors
    /// The other end broke the protocol: the channel is of no more use.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.link.push(bytes);
        while let Some(unit) = self.link.next()? {
            match unit {
                Unit::Hello(hello) => self.on_hello(hello)?,
                Unit::Frame(header, payload) => self.on_frame(header, payload)?,
            }
        }
        Ok(())
    }

    /// What happened, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn on_hello(&mut self, hello: Hello) -> Result<(), ProtocolError> {
        match self.role {
            Role::Agent => {
                self.forget();
                self.established = hello.version == VERSION;
                self.link.synchronised(self.established);
                self.events.push_back(Event::Hello(hello));
            }
            Role::Host if hello.version != VERSION => {
                return Err(ProtocolError::Version {
                    theirs: hello.version,
                });
            }
            Role::Host if hello.nonce == self.nonce && hello.nonce != 0 => {
                if hello.info.is_none() {
                    return Err(ProtocolError::Malformed { what: "hello" });
                }
                self.established = true;
                self.link.synchronised(true);
                self.events.push_back(Event::Hello(hello));
            }
            // The answer to an earlier hello; the one to the latest is still to come.
            Role::Host if hello.nonce != 0 && !self.established => {}
            Role::Host => {
                let restarted = self.established;
                self.forget();
                self.events.push_back(Event::Announced { restarted });
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, header: Header, payload: Vec<u8>) -> Result<(), ProtocolError> {
        let id = header.stream;
        match header.kind {
            // Only a host asks: an agent that never reads could make it answer without end.
            Kind::Ping if self.role == Role::Agent => {
                self.frame(id, Kind::Pong, 0, &payload);
                return Ok(());
            }
            Kind::Pong => {
                let malformed = ProtocolError::Malformed { what: "pong" };
                let token = payload.try_into().map_err(|_| malformed)?;
                let token = u64::from_le_bytes(token);
                self.events.push_back(Event::Pong { token });
                return Ok(());
            }
            Kind::Open if self.role == Role::Agent => return self.on_open(id, payload),
            Kind::Open | Kind::Ping => {
                let kind = header.kind as u8;
                return Err(ProtocolError::UnexpectedFrame { kind });
            }
            Kind::Close if self.streams.contains_key(&id) => {
                self.on_close(id);
                return Ok(());
            }
            _ => {}
        }
        let Some(event) = self.stream_event(header, payload)? else {
            return Ok(());
        };
        if self.open_stream(id).is_some() {
            self.events.push_back(event);
        }
        Ok(())
    }

    /// What a frame on a stream means; checks it against what is allowed there.
    fn stream_event(
        &mut self,
        header: Header,
        payload: Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        let id = header.stream;
        let lane = Lane::from_byte(header.lane).ok_or(ProtocolError::Malformed { what: "lane" })?;
        let unknown = ProtocolError::UnknownStream { stream: id };
        let stream = self.streams.get_mut(&id).ok_or(unknown)?;
        let overrun = ProtocolError::Overrun { stream: id };
        Ok(Some(match header.kind {
            Kind::Data => {
                if !stream.incoming[lane as usize].received(payload.len()) {
                    return Err(overrun);
                }
                if payload.is_empty() {
                    return Ok(None);
                }
                Event::Data {
                    stream: id,
                    lane,
                    bytes: payload,
                }
            }
            Kind::End => {
                if std::mem::replace(&mut stream.incoming[lane as usize].ended, true) {
                    return Err(overrun);
                }
                Event::End { stream: id, lane }
            }
            Kind::Credit => {
                let malformed = ProtocolError::Malformed { what: "credit" };
                let bytes = u32::from_le_bytes(payload.try_into().map_err(|_| malformed)?);
                if !stream.outgoing[lane as usize].allow(bytes) {
                    return Err(overrun);
                }
                Event::Credit { stream: id, lane }
            }
            _ => Event::Message {
                stream: id,
                payload,
            },
        }))
    }

    fn on_open(&mut self, id: StreamId, payload: Vec<u8>) -> Result<(), ProtocolError> {
        if id <= self.last {
            return Err(ProtocolError::UnknownStream { stream: id });
        }
        self.last = id;
        self.streams.insert(id, Stream::new());
        self.events.push_back(Event::Opened {
            stream: id,
            payload,
        });
        Ok(())
    }

    fn on_close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if !stream.closed {
            // An answer that only ends the other's book-keeping: for itself it would wake it.
            let answer = header(id, Kind::Close, 0, 0).encode();
            self.later.extend_from_slice(&answer);
            self.events.push_back(Event::Closed { stream: id });
        }
    }

    fn frame(&mut self, stream: StreamId, kind: Kind, lane: u8, payload: &[u8]) {
        self.output.append(&mut self.later);
        let header = header(stream, kind, lane, payload.len());
        self.output.extend_from_slice(&header.encode());
        self.output.extend_from_slice(payload);
    }

    /// A stream that can still be spoken on.
    fn open_stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id).filter(|stream| !stream.closed)
    }

    /// Opens a stream with a request. None where there was no hello yet, where the request is
    /// longer than [`MAX_REQUEST`], or where all numbers are used up.
    pub fn open(&mut self, request: &[u8]) -> Option<StreamId> {
        if self.role != Role::Host || !self.established || request.len() > MAX_REQUEST as usize {
            return None;
        }
        let id = self.last.checked_add(1)?;
        self.last = id;
        self.streams.insert(id, Stream::new());
        self.frame(id, Kind::Open, 0, request);
        Some(id)
    }

    /// Sends a message. On a stream that is closed it vanishes. Messages are not counted against
    /// the window: they are few and short.
    pub fn message(&mut self, id: StreamId, payload: &[u8]) {
        if self.open_stream(id).is_some() {
            self.frame(id, Kind::Message, 0, payload);
        }
    }

    /// How many bytes [`Endpoint::send`] would take of `wanted` bytes.
    #[must_use]
    pub fn capacity(&self, id: StreamId, lane: Lane, wanted: usize) -> usize {
        if self.output_len() >= OUTPUT_LIMIT {
            return 0;
        }
        self.streams
            .get(&id)
            .filter(|stream| !stream.closed)
            .map_or(0, |stream| stream.outgoing[lane as usize].allowance(wanted))
    }

    /// Sends data, as much as the other end allows now; says how many bytes that were.
    pub fn send(&mut self, id: StreamId, lane: Lane, bytes: &[u8]) -> usize {
        let count = self.capacity(id, lane, bytes.len());
        if count > 0
            && let Some(stream) = self.open_stream(id)
        {
            stream.outgoing[lane as usize].sent(count);
            self.frame(id, Kind::Data, lane as u8, &bytes[..count]);
        }
        count
    }

    /// Says that no more bytes will come on this lane.
    pub fn end(&mut self, id: StreamId, lane: Lane) {
        let Some(stream) = self.open_stream(id) else {
            return;
        };
        if !std::mem::replace(&mut stream.outgoing[lane as usize].ended, true) {
            self.frame(id, Kind::End, lane as u8, &[]);
        }
    }

    /// Says that bytes of an [`Event::Data`] are used up, so that as many new ones may come.
    pub fn consumed(&mut self, id: StreamId, lane: Lane, bytes: usize) {
        let credit = self
            .open_stream(id)
            .and_then(|stream| stream.incoming[lane as usize].consumed(bytes));
        if let Some(credit) = credit {
            self.frame(id, Kind::Credit, lane as u8, &credit.to_le_bytes());
        }
    }

    /// Closes a stream: nothing is said nor heard on it any more. To the agent a close is the
    /// order to give up what it does there.
    pub fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.open_stream(id) {
            stream.closed = true;
            self.frame(id, Kind::Close, 0, &[]);
        }
    }

    /// Asks the other end for a sign of life.
    pub fn ping(&mut self, token: u64) {
        if self.established {
            self.frame(0, Kind::Ping, 0, &token.to_le_bytes());
        }
    }

    /// Bytes to send.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// Says that so many bytes of [`Endpoint::output`] were sent.
    pub fn written(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written >= OUTPUT_LIMIT {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    fn output_len(&self) -> usize {
        self.output.len() - self.written
    }

    /// How many streams are open, or closed by this end alone.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }
}

fn header(stream: StreamId, kind: Kind, lane: u8, length: usize) -> Header {
    Header {
        length: length as u32,
        stream,
        kind,
        lane,
    }
}
