//! Much data, at full speed, without a wrong byte.

use etherparse::PacketBuilder;
use libtest_mimic::Failed;
use machinist_network::Vlan;
use machinist_network::offload::Note;
use machinist_sys::netlink::Netlink;
use machinist_sys::packet::{Frame, Headers, PacketSocket};

use crate::lab::{Container, Sockets};
use crate::traffic::{Bytes, transfer, udp, udp_ping};
use crate::vm::Vm;

const MUCH: usize = 100_000_000;

pub fn containers() -> Result<(), Failed> {
    let vlan = Vlan::new(1)?;
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    transfer(&a.netns, &b.netns, b.address.v4.into(), MUCH);
    transfer(&b.netns, &a.netns, a.address.v6.into(), MUCH);
    let counters = a.port.counters();
    // The kernel's long packets pass uncut.
    assert!(
        counters.received.bytes / counters.received.frames > 3000,
        "{counters:?}"
    );
    Ok(())
}

pub fn vm_and_container() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (vm, container) = (Vm::new(&vlan, 1, &sockets), Container::new(&vlan, 2));
    for address in vm.address.both() {
        transfer(&container.netns, &vm.netns, address, MUCH);
    }
    for address in container.address.both() {
        transfer(&vm.netns, &container.netns, address, MUCH / 4);
    }
    let (vm, container) = (vm.port.counters(), container.port.counters());
    // Cut in software: nothing was too long, nothing could not be finished.
    assert!(
        container.received.bytes / container.received.frames > 1514,
        "{container:?}"
    );
    assert_eq!((vm.drops.too_long, vm.drops.refused), (0, 0), "{vm:?}");
    Ok(())
}

/// A container's kernel is given a UDP packet to be cut; the virtual machine's checks the pieces.
pub fn udp_segments() -> Result<(), Failed> {
    const SIZE: usize = 1000;
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (vm, container) = (Vm::new(&vlan, 1, &sockets), Container::new(&vlan, 2));
    // Both know each other's MAC addresses and that this works.
    let (from, to) = (container.address.v4, vm.address.v4);
    udp_ping(&container.netns, from.into(), &vm.netns, to.into(), 10);
    let receiver = udp(&vm.netns, to.into(), 7000);
    let payload = Bytes::new(3).take(20 * SIZE + 17);
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(container.address.mac.0, vm.address.mac.0)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(7001, 7000)
        .write(&mut bytes, &payload)?;
    // The pseudo header's sum is what a kernel would leave; whoever cuts computes all anew.
    let header = Note {
        flags: Note::NEEDS_CHECKSUM,
        gso_type: Note::SEGMENT_UDP,
        hdr_len: 42,
        gso_size: SIZE.try_into()?,
        csum_start: 34,
        csum_offset: 6,
    };
    let open = || {
        let index = Netlink::open().unwrap().link_by_name("eth1").unwrap().index;
        PacketSocket::open(index, Headers::Offload).unwrap()
    };
    let sender = container.netns.run(open)?;
    let frame = Frame {
        header: &header,
        bytes: &bytes,
    };
    assert_eq!(sender.send(&[frame])?, 1);
    for part in payload.chunks(SIZE) {
        let mut memory = [0; 2000];
        let count = receiver.recv(&mut memory)?;
        assert_eq!(&memory[..count], part);
    }
    Ok(())
}
