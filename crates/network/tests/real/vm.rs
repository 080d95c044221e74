//! A "virtual machine": QEMU's end of a protocol, with the kernel's network stack behind it, which
//! gets plain frames and verifies every checksum.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use machinist_network::stream::{FrameQueue, FrameReader};
use machinist_network::{NetNs, Port, Vlan};
use machinist_sys::ethtool;
use machinist_sys::netlink::{Netlink, VethEnd};
use machinist_sys::packet::{Batch, Frame, Headers, PacketSocket, VnetHeader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lab::{Address, Sockets, id, number};
use crate::traffic::PATIENCE;

/// What a kernel must do itself where the network card does nothing.
const ALL_OFFLOADS: &[&str] = &[
    "tx-checksum-ip-generic",
    "tx-checksum-sctp",
    "tx-generic-segmentation",
    "tx-scatter-gather",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
];

/// A machine behind a port of the kind `P`.
pub struct Vm<P = Port> {
    pub netns: NetNs,
    pub port: P,
    pub address: Address,
    /// Where its network card is.
    _wire: NetNs,
    stop: Arc<AtomicBool>,
    card: Option<JoinHandle<()>>,
}

impl Vm {
    pub fn new(vlan: &Vlan, n: usize, sockets: &Sockets) -> Self {
        let path = sockets.path(n);
        let port = vlan.attach_socket(&format!("machine{n}"), &path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        Self::behind(port, vlan, n, Stream::new(stream))
    }
}

impl<P> Vm<P> {
    /// One whose network card has the other end of this wire.
    pub fn behind(port: P, vlan: &Vlan, n: usize, wire: impl Wire) -> Self {
        let id = id(vlan);
        let (netns, space) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let frames = plug(&netns, &space, id, n);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let card = thread::spawn(move || run(wire, &frames, &stopped));
        Self {
            netns,
            port,
            address: Address::of(id, n),
            _wire: space,
            stop,
            card: Some(card),
        }
    }
}

impl<P> Drop for Vm<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let card = self.card.take().unwrap().join();
        assert!(
            card.is_ok() || thread::panicking(),
            "the network card has failed"
        );
    }
}

/// What carries frames between a machine's network card and the switch. It never waits.
pub trait Wire: AsFd + Send + 'static {
    /// Hands out what has come. Returns false when the switch is gone.
    fn receive(&mut self, out: &mut dyn FnMut(&[Frame<'_>])) -> bool;
    /// Sends a frame; what does not fit is lost, as on any network.
    fn send(&mut self, frame: &[u8]);
    /// Goes on sending.
    fn flush(&mut self) {}
}

/// QEMU's stream protocol.
struct Stream {
    stream: UnixStream,
    reader: FrameReader,
    queue: FrameQueue,
}

impl Stream {
    fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            reader: FrameReader::default(),
            queue: FrameQueue::new(1 << 20),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Wire for Stream {
    fn receive(&mut self, out: &mut dyn FnMut(&[Frame<'_>])) -> bool {
        match self.stream.read(self.reader.room()) {
            Ok(0) => return false,
            Ok(count) => self.reader.fill(count),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let (mut at, mut places) = (0, Vec::new());
        while let Some(place) = self.reader.next(at).unwrap() {
            at = place.end;
            places.push(place);
        }
        let header = VnetHeader::default();
        let frame = |place| Frame {
            header: &header,
            bytes: self.reader.frame(place),
        };
        let list: Vec<Frame<'_>> = places.into_iter().map(frame).collect();
        out(&list);
        self.reader.consume(at);
        true
    }

    fn send(&mut self, frame: &[u8]) {
        let _ = self.queue.push(frame);
    }

    fn flush(&mut self) {
        while !self.queue.pending().is_empty() {
            match self.stream.write(self.queue.pending()) {
                Ok(count) => self.queue.advance(count),
                Err(_) => return,
            }
        }
    }
}

/// Makes the machine's interface and returns the socket at its other end.
fn plug(netns: &NetNs, wire: &NetNs, vlan: u8, n: usize) -> PacketSocket {
    let address = Address::of(vlan, n);
    let end = |name, mac, netns| VethEnd {
        name,
        mac,
        mtu: 1500,
        netns,
        index: None,
    };
    let make = || {
        drop(std::fs::write(
            "/proc/sys/net/ipv6/conf/default/disable_ipv6",
            "1",
        ));
        let mut netlink = Netlink::open().unwrap();
        let inner = end("eth1", Some(address.mac), Some(netns.as_fd()));
        let index = 1000;
        let outer = VethEnd {
            index: Some(index),
            ..end("card", None, None)
        };
        netlink.create_veth(outer, inner).unwrap();
        netlink.set_up(index, true).unwrap();
        let socket = PacketSocket::open(index, Headers::None).unwrap();
        (socket, netlink, index)
    };
    let (frames, mut outer, index) = wire.run(make).unwrap();
    let configure = || {
        ethtool::turn_off("eth1", ALL_OFFLOADS).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link_by_name("eth1").unwrap().index;
        netlink.loopback_up().unwrap();
        netlink.set_up(index, true).unwrap();
        for (address, prefix) in machinist_network::addresses::both(vlan, number(n)) {
            netlink.add_address(index, address, prefix).unwrap();
        }
        assert!(netlink.wait_until_running(index, PATIENCE).unwrap());
    };
    netns.run(configure).unwrap();
    assert!(outer.wait_until_running(index, PATIENCE).unwrap());
    frames
}

/// The network card: frames from the wire to the stack and back.
fn run(mut wire: impl Wire, frames: &PacketSocket, stop: &AtomicBool) {
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [
            PollFd::new(&wire, PollFlags::IN),
            PollFd::new(frames, PollFlags::IN),
        ];
        let tick = Timespec::try_from(Duration::from_millis(20)).unwrap();
        poll(&mut ready, Some(&tick)).unwrap();
        if !wire.receive(&mut |list| to_stack(list, frames)) {
            return;
        }
        if let Ok(count) = frames.receive(&mut batch) {
            for index in 0..count {
                let frame = batch.frame(index);
                assert!(!frame.checksum_missing && frame.bytes.len() <= 1514);
                wire.send(frame.bytes);
            }
        }
        wire.flush();
    }
}

fn to_stack(mut list: &[Frame<'_>], frames: &PacketSocket) {
    while !list.is_empty() {
        match frames.send(list) {
            Ok(count) => list = &list[count..],
            Err(_) => list = &list[1..],
        }
    }
}
