//! A "virtual machine": QEMU's end of the stream protocol, with the kernel's network stack behind
//! it, which gets plain frames and verifies every checksum.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
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

use crate::lab::{Address, Sockets, number};

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

pub struct Vm {
    pub netns: NetNs,
    pub port: Port,
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
        let (netns, wire) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let address = Address::of(vlan.id(), n);
        let frames = plug(&netns, &wire, vlan.id(), n);
        let stop = Arc::new(AtomicBool::new(false));
        let stream = UnixStream::connect(&path).unwrap();
        let stopped = Arc::clone(&stop);
        let card = thread::spawn(move || run(stream, &frames, &stopped));
        Self {
            netns,
            port,
            address,
            _wire: wire,
            stop,
            card: Some(card),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let card = self.card.take().unwrap().join();
        assert!(
            card.is_ok() || thread::panicking(),
            "the network card has failed"
        );
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
    };
    let make = || {
        drop(std::fs::write(
            "/proc/sys/net/ipv6/conf/default/disable_ipv6",
            "1",
        ));
        let mut netlink = Netlink::open().unwrap();
        let inner = end("eth1", Some(address.mac), Some(netns.as_fd()));
        netlink.create_veth(end("card", None, None), inner).unwrap();
        let index = netlink.link_by_name("card").unwrap().index;
        netlink.set_up(index, true).unwrap();
        PacketSocket::open(index, Headers::None).unwrap()
    };
    let frames = wire.run(make).unwrap();
    let configure = || {
        ethtool::turn_off("eth1", ALL_OFFLOADS).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link_by_name("eth1").unwrap().index;
        netlink.loopback_up().unwrap();
        netlink.set_up(index, true).unwrap();
        for (address, prefix) in machinist_network::addresses::both(vlan, number(n)) {
            netlink.add_address(index, address, prefix).unwrap();
        }
    };
    netns.run(configure).unwrap();
    frames
}

/// The network card: frames from the stream to the stack and back.
fn run(mut stream: UnixStream, frames: &PacketSocket, stop: &AtomicBool) {
    stream.set_nonblocking(true).unwrap();
    let (mut reader, mut batch) = (FrameReader::default(), Batch::new());
    let mut queue = FrameQueue::new(1 << 20);
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [
            PollFd::new(&stream, PollFlags::IN),
            PollFd::new(frames, PollFlags::IN),
        ];
        let tick = Timespec::try_from(Duration::from_millis(20)).unwrap();
        poll(&mut ready, Some(&tick)).unwrap();
        match stream.read(reader.room()) {
            Ok(0) => return,
            Ok(count) => reader.fill(count),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        to_stack(&mut reader, frames);
        if let Ok(count) = frames.receive(&mut batch) {
            for index in 0..count {
                let frame = batch.frame(index);
                assert!(!frame.checksum_missing && frame.bytes.len() <= 1514);
                // What does not fit is lost, as on any network.
                let _ = queue.push(frame.bytes);
            }
        }
        while !queue.pending().is_empty() {
            match stream.write(queue.pending()) {
                Ok(count) => queue.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
    }
}

fn to_stack(reader: &mut FrameReader, frames: &PacketSocket) {
    let (mut at, mut places) = (0, Vec::new());
    while let Some(place) = reader.next(at).unwrap() {
        at = place.end;
        places.push(place);
    }
    let header = VnetHeader::default();
    let list: Vec<Frame<'_>> = places
        .into_iter()
        .map(|place| Frame {
            header: &header,
            bytes: reader.frame(place),
        })
        .collect();
    let mut rest = &list[..];
    while !rest.is_empty() {
        match frames.send(rest) {
            Ok(count) => rest = &rest[count..],
            Err(_) => rest = &rest[1..],
        }
    }
    reader.consume(at);
}
