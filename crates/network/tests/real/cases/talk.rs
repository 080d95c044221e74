//! Machines hear each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libtest_mimic::Failed;
use machinist_network::Vlan;
use machinist_sys::netlink::{Mac, Netlink};
use machinist_sys::packet::{Batch, Frame, Headers, PacketSocket, VnetHeader};

use crate::lab::{Container, Sockets};
use crate::traffic::{PATIENCE, transfer, udp, udp_ping};
use crate::vm::Vm;

pub fn containers() -> Result<(), Failed> {
    let vlan = Vlan::new(1)?;
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    for (from, to) in a.address.both().into_iter().zip(b.address.both()) {
        // One packet, many fragments, and TCP.
        udp_ping(&a.netns, from, &b.netns, to, 100);
        udp_ping(&a.netns, from, &b.netns, to, 60_000);
        transfer(&a.netns, &b.netns, to, 1000);
    }
    let (a, b) = (a.port.counters(), b.port.counters());
    assert!(a.received.frames > 50 && b.sent.frames > 50, "{a:?} {b:?}");
    // The groups that IPv6 tells of go to all others, so none is dropped for being malformed.
    assert_eq!((a.drops, b.drops), Default::default());
    Ok(())
}

pub fn vm_and_container() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let vm = Vm::new(&vlan, 1, &sockets);
    let container = Container::new(&vlan, 2);
    let other = Vm::new(&vlan, 3, &sockets);
    let addresses = vm.address.both().into_iter().zip(container.address.both());
    for ((a, b), c) in addresses.zip(other.address.both()) {
        udp_ping(&vm.netns, a, &container.netns, b, 100);
        udp_ping(&container.netns, b, &vm.netns, a, 60_000);
        transfer(&container.netns, &vm.netns, a, 1000);
        udp_ping(&vm.netns, a, &other.netns, c, 60_000);
    }
    Ok(())
}

pub fn multicast() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    let c = Vm::new(&vlan, 3, &sockets);
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let from = udp(&a.netns, a.address.v4.into(), 0);
    let mut listeners = Vec::new();
    for (netns, address) in [(&b.netns, b.address), (&c.netns, c.address)] {
        let socket = udp(netns, Ipv4Addr::UNSPECIFIED.into(), 5000);
        socket.join_multicast_v4(&group, &address.v4)?;
        listeners.push(socket);
    }
    from.send_to(b"four", (group, 5000))?;
    for socket in &listeners {
        let mut memory = [0; 16];
        let (count, sender) = socket.recv_from(&mut memory)?;
        assert_eq!(
            (&memory[..count], sender),
            (&b"four"[..], from.local_addr()?)
        );
    }

    let index = |netns: &machinist_network::NetNs| {
        netns.run(|| Netlink::open().unwrap().link_by_name("eth1").unwrap().index)
    };
    let group = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0, 0x99);
    let mut listeners = Vec::new();
    for netns in [&b.netns, &c.netns] {
        let socket = udp(netns, IpAddr::V6(Ipv6Addr::UNSPECIFIED), 6000);
        socket.join_multicast_v6(&group, index(netns)?)?;
        listeners.push(socket);
    }
    let from = udp(&a.netns, a.address.v6.into(), 0);
    let target = std::net::SocketAddrV6::new(group, 6000, 0, index(&a.netns)?);
    from.send_to(b"six", target)?;
    for socket in &listeners {
        let mut memory = [0; 16];
        let (count, _) = socket.recv_from(&mut memory)?;
        assert_eq!(&memory[..count], b"six");
    }
    Ok(())
}

/// A tag is in place again at the other end, and an address may be at another port under it.
pub fn tags() -> Result<(), Failed> {
    let vlan = Vlan::new(1)?;
    let machines: Vec<Container> = (1..=3).map(|n| Container::new(&vlan, n)).collect();
    let sockets: Vec<PacketSocket> = machines.iter().map(raw).collect();
    let frame = |to: Mac, from: Mac, tag: &[u8]| {
        let mut frame = [to.0, from.0].concat();
        frame.extend(tag);
        // A type that no network stack cares for.
        frame.extend([0x88, 0xb5]);
        frame.extend([0x5a; 46]);
        frame
    };
    let tag = [0x81, 0x00, 0x60, 0x07];
    let (moving, fixed) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 1]));
    let header = VnetHeader::default();
    let send = |from: usize, bytes: &[u8]| {
        let frame = Frame {
            header: &header,
            bytes,
        };
        sockets[from].send(&[frame]).unwrap();
    };
    // Plain at the third port, tagged at the second.
    let plain_hello = frame(Mac::BROADCAST, moving, &[]);
    send(2, &plain_hello);
    expect(&sockets[0], &plain_hello);
    expect(&sockets[1], &plain_hello);
    let tagged_hello = frame(Mac::BROADCAST, moving, &tag);
    send(1, &tagged_hello);
    expect(&sockets[0], &tagged_hello);
    expect(&sockets[2], &tagged_hello);
    let (plain, tagged) = (frame(moving, fixed, &[]), frame(moving, fixed, &tag));
    send(0, &plain);
    send(0, &tagged);
    expect(&sockets[2], &plain);
    expect(&sockets[1], &tagged);
    Ok(())
}

fn raw(machine: &Container) -> PacketSocket {
    let open = || {
        let index = Netlink::open().unwrap().link_by_name("eth1").unwrap().index;
        PacketSocket::open(index, Headers::Offload).unwrap()
    };
    machine.netns.run(open).unwrap()
}

/// Waits for the next frame of the tests' type, and compares.
fn expect(socket: &PacketSocket, want: &[u8]) {
    let mut batch = Batch::new();
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let mut ready = [rustix::event::PollFd::new(
            socket,
            rustix::event::PollFlags::IN,
        )];
        let tick = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut ready, Some(&tick)).unwrap();
        for index in 0..socket.receive(&mut batch).unwrap_or(0) {
            let frame = batch.frame(index).bytes;
            if frame.windows(2).any(|pair| pair == [0x88, 0xb5]) {
                assert_eq!(frame, want);
                return;
            }
        }
    }
    panic!("the frame has not come");
}
