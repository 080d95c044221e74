//! Two endpoints that talk to each other, whatever the channel does to their bytes.

use std::collections::BTreeMap;

use machinist_wire::{Endpoint, Event, Hello, Info, Lane, Role, StreamId, VERSION, WINDOW};
use proptest::prelude::*;

const LANE: [Lane; 2] = [Lane::Main, Lane::Error];

fn hello(nonce: u64, info: bool) -> Hello {
    Hello {
        version: VERSION,
        nonce,
        info: info.then(Info::default),
    }
}

/// A pair that has said hello.
fn pair() -> (Endpoint, Endpoint) {
    let (mut host, mut agent) = (Endpoint::new(Role::Host), Endpoint::new(Role::Agent));
    host.hello(&hello(7, false));
    carry(&mut host, &mut agent, usize::MAX, usize::MAX);
    assert!(matches!(agent.next_event(), Some(Event::Hello(_))));
    agent.hello(&hello(7, true));
    carry(&mut agent, &mut host, usize::MAX, usize::MAX);
    assert!(matches!(host.next_event(), Some(Event::Hello(_))));
    (host, agent)
}

/// Moves at most `limit` bytes, in pieces of at most `piece`.
fn carry(from: &mut Endpoint, to: &mut Endpoint, limit: usize, piece: usize) {
    let bytes = from.output();
    let bytes = bytes[..bytes.len().min(limit)].to_vec();
    from.written(bytes.len());
    for piece in bytes.chunks(piece.clamp(1, 1 << 20)) {
        to.receive(piece).expect("an honest end");
    }
}

#[derive(Debug, Clone)]
enum Act {
    Open,
    Send {
        host: bool,
        stream: usize,
        error: bool,
        count: usize,
    },
    End {
        host: bool,
        stream: usize,
        error: bool,
    },
    Close {
        host: bool,
        stream: usize,
    },
    Consume {
        host: bool,
    },
    Carry {
        host: bool,
        limit: usize,
        piece: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let (host, stream, error) = (any::<bool>(), 0..6_usize, any::<bool>());
    let count = prop_oneof![0..200_usize, 0..400_000_usize];
    prop_oneof![
        1 => Just(Act::Open),
        6 => (host, stream.clone(), error, count)
            .prop_map(|(host, stream, error, count)| Act::Send { host, stream, error, count }),
        1 => (host, stream.clone(), error)
            .prop_map(|(host, stream, error)| Act::End { host, stream, error }),
        1 => (host, stream).prop_map(|(host, stream)| Act::Close { host, stream }),
        3 => host.prop_map(|host| Act::Consume { host }),
        6 => (host, prop_oneof![0..64_usize, Just(usize::MAX)], 1..5000_usize)
            .prop_map(|(host, limit, piece)| Act::Carry { host, limit, piece }),
    ]
}

/// What one end has seen and done.
#[derive(Default)]
struct Side {
    /// Bytes that were sent and received, by stream and lane.
    sent: BTreeMap<(StreamId, u8), u64>,
    received: BTreeMap<(StreamId, u8), u64>,
    unused: Vec<(StreamId, Lane, usize)>,
    ended: Vec<(StreamId, u8)>,
    closed: Vec<StreamId>,
}

/// Bytes of a stream are a function of where they are, so that any mix-up shows.
fn byte(stream: StreamId, lane: u8, at: u64) -> u8 {
    (u64::from(stream) * 31 + u64::from(lane) * 7 + at * 13 + at / 251) as u8
}

fn observe(endpoint: &mut Endpoint, side: &mut Side) {
    while let Some(event) = endpoint.next_event() {
        match event {
            Event::Data {
                stream,
                lane,
                bytes,
            } => {
                assert!(
                    !side.ended.contains(&(stream, lane as u8)),
                    "data after the end"
                );
                let at = side.received.entry((stream, lane as u8)).or_default();
                for found in &bytes {
                    assert_eq!(*found, byte(stream, lane as u8, *at));
                    *at += 1;
                }
                side.unused.push((stream, lane, bytes.len()));
            }
            Event::End { stream, lane } => side.ended.push((stream, lane as u8)),
            Event::Closed { stream } => side.closed.push(stream),
            _ => {}
        }
    }
    // Nobody is ever further ahead than the window.
    let mut waiting: BTreeMap<(StreamId, u8), usize> = BTreeMap::new();
    for (stream, lane, count) in &side.unused {
        *waiting.entry((*stream, *lane as u8)).or_default() += count;
    }
    assert!(waiting.values().all(|count| *count <= WINDOW as usize));
}

fn send(endpoint: &mut Endpoint, side: &mut Side, id: StreamId, lane: Lane, count: usize) {
    let at = side.sent.entry((id, lane as u8)).or_default();
    let bytes: Vec<u8> = (*at..*at + count as u64)
        .map(|at| byte(id, lane as u8, at))
        .collect();
    *at += endpoint.send(id, lane, &bytes) as u64;
}

fn perform(act: Act, ends: &mut [(Endpoint, Side); 2], open: &mut Vec<StreamId>) {
    let index = |host: bool| usize::from(!host);
    let pick = |open: &[StreamId], stream: usize| open.get(stream % open.len().max(1)).copied();
    match act {
        Act::Open => {
            if open.len() < 6 {
                open.extend(ends[0].0.open(b"request"));
            }
        }
        Act::Send {
            host,
            stream,
            error,
            count,
        } => {
            let (endpoint, side) = &mut ends[index(host)];
            if let Some(id) = pick(open, stream) {
                send(endpoint, side, id, LANE[usize::from(error)], count);
            }
        }
        Act::End {
            host,
            stream,
            error,
        } => {
            if let Some(id) = pick(open, stream) {
                ends[index(host)].0.end(id, LANE[usize::from(error)]);
            }
        }
        Act::Close { host, stream } => {
            let (endpoint, side) = &mut ends[index(host)];
            if let Some(id) = pick(open, stream) {
                let before = endpoint.output().len();
                endpoint.close(id);
                // It may not have heard of the stream yet.
                if endpoint.output().len() > before {
                    side.closed.push(id);
                }
            }
        }
        Act::Consume { host } => {
            let (endpoint, side) = &mut ends[index(host)];
            for (stream, lane, count) in side.unused.drain(..) {
                endpoint.consumed(stream, lane, count);
            }
        }
        Act::Carry { host, limit, piece } => {
            let [(a, _), (b, _)] = ends;
            match host {
                true => carry(a, b, limit, piece),
                false => carry(b, a, limit, piece),
            }
        }
    }
    for (endpoint, side) in ends {
        observe(endpoint, side);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_whole_and_apart(acts in prop::collection::vec(act(), 1..120)) {
        let (host, agent) = pair();
        let mut ends = [(host, Side::default()), (agent, Side::default())];
        let mut open = Vec::new();
        for act in acts {
            perform(act, &mut ends, &mut open);
        }
        // Let everything arrive: all that was sent on streams that nobody closed is there.
        for _ in 0..4 {
            for host in [true, false] {
                let (limit, piece) = (usize::MAX, 70_000);
                perform(Act::Carry { host, limit, piece }, &mut ends, &mut open);
                perform(Act::Consume { host }, &mut ends, &mut open);
            }
        }
        let closed = |id: &StreamId| ends.iter().any(|(_, side)| side.closed.contains(id));
        for (from, to) in [(0, 1), (1, 0)] {
            for ((id, lane), sent) in &ends[from].1.sent {
                let received = ends[to].1.received.get(&(*id, *lane)).copied().unwrap_or(0);
                prop_assert!(received <= *sent);
                prop_assert!(closed(id) || received == *sent, "{received} of {sent}");
            }
        }
        // Closed streams are forgotten by both, once there is something else to say.
        let alive = open.iter().filter(|id| !closed(id)).count();
        ends[0].0.ping(1);
        for host in [true, false] {
            let (limit, piece) = (usize::MAX, 70_000);
            perform(Act::Carry { host, limit, piece }, &mut ends, &mut open);
        }
        prop_assert_eq!(ends[0].0.open_streams(), alive);
        prop_assert_eq!(ends[1].0.open_streams(), alive);
    }

    #[test]
    fn garbage_is_an_error_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let (mut host, mut agent) = pair();
        host.open(b"request").unwrap();
        let _ = host.receive(&bytes);
        let _ = agent.receive(&bytes);
        prop_assert!(host.output().len() < 1 << 16);
    }
}

/// A plain generator, so that the same mutations are tried everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize
    }
}

#[test]
fn mutated_conversations_never_panic() {
    // A conversation with every kind of frame in it.
    let (mut host, mut agent) = pair();
    let id = host.open(b"request").unwrap();
    host.send(id, Lane::Main, b"some input");
    host.message(id, b"control");
    host.ping(1);
    let to_agent = host.output().to_vec();
    carry(&mut host, &mut agent, usize::MAX, usize::MAX);
    agent.message(id, b"reply");
    agent.send(id, Lane::Error, &[1; 70_000]);
    agent.end(id, Lane::Error);
    agent.consumed(id, Lane::Main, 1 << 17);
    agent.close(id);
    let to_host = agent.output().to_vec();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..5000 {
        for (bytes, to_the_host) in [(&to_host, true), (&to_agent, false)] {
            let mut bytes = bytes[..random.next() % bytes.len() + 1].to_vec();
            for _ in 0..random.next() % 4 + 1 {
                let at = random.next() % bytes.len().min(64);
                bytes[at] = random.next() as u8;
            }
            let (mut host, mut agent) = pair();
            host.open(b"request").unwrap();
            let endpoint = if to_the_host { &mut host } else { &mut agent };
            for piece in bytes.chunks(random.next() % 1000 + 1) {
                if endpoint.receive(piece).is_err() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_host_finds_the_answer_to_its_latest_hello() {
    let (mut host, mut agent) = (Endpoint::new(Role::Host), Endpoint::new(Role::Agent));
    agent.hello(&hello(0, true));
    host.hello(&hello(1, false));
    host.hello(&hello(2, false));
    carry(&mut host, &mut agent, usize::MAX, 3);
    while let Some(Event::Hello(theirs)) = agent.next_event() {
        agent.hello(&hello(theirs.nonce, true));
    }
    carry(&mut agent, &mut host, usize::MAX, 3);
    assert_eq!(
        host.next_event(),
        Some(Event::Announced { restarted: false })
    );
    assert!(matches!(host.next_event(), Some(Event::Hello(found)) if found.nonce == 2));
    assert!(host.established() && agent.established());
    // An agent that begins anew in the midst of it is noticed.
    host.open(b"request").unwrap();
    let mut fresh = Endpoint::new(Role::Agent);
    fresh.hello(&hello(0, true));
    carry(&mut fresh, &mut host, usize::MAX, 5);
    assert_eq!(
        host.next_event(),
        Some(Event::Announced { restarted: true })
    );
    assert_eq!(host.open(b"request"), None);
}

#[test]
fn another_version_is_said_by_name() {
    let mut host = Endpoint::new(Role::Host);
    host.hello(&hello(1, false));
    let mut agent = Endpoint::new(Role::Agent);
    agent.hello(&Hello {
        version: VERSION + 1,
        ..hello(1, true)
    });
    let error = host.receive(agent.output()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol version 2 at the other end, 1 here"
    );
}

#[test]
fn a_host_opens_nothing_that_an_agent_would_not_take() {
    let (mut host, _) = pair();
    assert_eq!(host.open(&vec![0; 5 << 20]), None);
    assert!(host.open(&vec![0; 1 << 20]).is_some());
}
