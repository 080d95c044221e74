//! Other people's programs at our VDE doors.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::{NetNs, VdeDoor, Vlan, addresses};
use machinist_sys::netlink::Netlink;

use super::qemu::{FIRMWARE, Qemu};
use super::vms::{broadcast, until};
use crate::lab::{Address, Container, Sockets, number};
use crate::plug::{Plug, sockets};
use crate::traffic::{transfer, udp, udp_ping};

/// A program that does not outlive its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether a program is installed.
pub fn is_there(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--help").stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok()
}

/// Whether tap interfaces can be made.
pub fn may_tap() -> bool {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .is_ok()
}

/// Two real QEMUs, one at each kind of port, ask a container for addresses, get them, and then ask
/// for a file: all of it by their firmware.
pub fn qemu() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(1)?, Sockets::new());
    let server = Container::new(&vlan, 1);
    let dhcp = udp(&server.netns, Ipv4Addr::UNSPECIFIED.into(), 67);
    let tftp = udp(&server.netns, Ipv4Addr::UNSPECIFIED.into(), 69);
    dhcp.set_broadcast(true)?;
    let door = vlan.listen_vde(&directories.path(2))?;
    let directory = door.directory().display();
    let vde = Address::of(1, 2);
    let first = Qemu::with(&format!("vde,id=n1,sock={directory}"), vde);
    let path = directories.path(3);
    let port = vlan.attach_socket("stream", &path)?;
    let socket = path.display();
    let netdev = format!("stream,id=n1,server=off,addr.type=unix,addr.path={socket}");
    let stream = Address::of(1, 3);
    let second = Qemu::with(&netdev, stream);

    let mut missing = vec![vde.v4, stream.v4];
    let begun = Instant::now();
    let tick = Some(Duration::from_millis(50));
    dhcp.set_read_timeout(tick)?;
    tftp.set_read_timeout(tick)?;
    while !missing.is_empty() {
        let counters = (door.counters(), port.counters());
        assert!(begun.elapsed() < FIRMWARE, "{missing:?}: {counters:?}");
        lend(&dhcp, [vde, stream])?;
        if let Ok((_, SocketAddr::V4(from))) = tftp.recv_from(&mut [0; 600]) {
            missing.retain(|address| address != from.ip());
        }
    }
    assert_eq!(door.counters().drops, Default::default());
    // Killed: its port is gone.
    drop((first, second));
    until("their end", || sockets(door.directory()) == ["ctl"]);
    Ok(())
}

/// Answers a question for an address, if there is one (RFC 2131).
fn lend(dhcp: &UdpSocket, to: [Address; 2]) -> Result<(), Failed> {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let mut question = [0; 1500];
    let Ok((length, _)) = dhcp.recv_from(&mut question) else {
        return Ok(());
    };
    let mac = &question[28..34];
    let Some(address) = to.iter().find(|address| address.mac.0 == mac) else {
        return Ok(());
    };
    let kinds = question[240..length].windows(3);
    let mut kind = kinds
        .filter(|option| option[..2] == [53, 1])
        .map(|option| option[2]);
    // An offer to who discovers, and all that is requested is granted.
    let answer = if kind.next_back() == Some(1) { 2 } else { 5 };
    let server = addresses::ipv4(1, number(1)).octets();
    let mut reply = question[..236].to_vec();
    reply[0] = 2;
    reply[16..20].copy_from_slice(&address.v4.octets());
    reply[20..24].copy_from_slice(&server);
    reply[108..112].copy_from_slice(b"file");
    reply.extend(COOKIE);
    reply.extend([
        53, 1, answer, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 54, 4,
    ]);
    reply.extend(server);
    reply.push(255);
    dhcp.send_to(&reply, ("192.168.1.255", 68))?;
    Ok(())
}

/// `vde_plug` has frames on its standard streams, after two bytes of length.
pub fn plug() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(1)?, Sockets::new());
    let door = vlan.listen_vde(&directories.path(1))?;
    let other = Plug::new(door.directory());
    let mut command = Command::new("vde_plug");
    command.arg(door.directory());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut program = Program(child?);
    let (mut to, mut from) = (
        program.0.stdin.take().unwrap(),
        program.0.stdout.take().unwrap(),
    );
    for byte in 1..100 {
        to.write_all(&[[0, 60].to_vec(), broadcast(byte)].concat())?;
        let mut memory = [0; 2000];
        let length = other.data.recv(&mut memory)?;
        assert_eq!(memory[..length], broadcast(byte));
        other.data.send(&broadcast(byte + 100))?;
        from.read_exact(&mut memory[..62])?;
        assert_eq!(memory[..2], [0, 60]);
        assert_eq!(memory[2..62], broadcast(byte + 100));
    }
    program.0.kill()?;
    until("its end", || sockets(door.directory()).len() == 3);
    Ok(())
}

/// A kernel's tap interface, by `vde_plug2tap`.
pub fn plug2tap() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(1)?, Sockets::new());
    let door = vlan.listen_vde(&directories.path(1))?;
    let (netns, container) = (NetNs::new()?, Container::new(&vlan, 2));
    let _program = tap(&door, &netns)?;
    let address = Address::of(1, 1);
    for (from, to) in address.both().into_iter().zip(container.address.both()) {
        udp_ping(&netns, from, &container.netns, to, 60_000);
        transfer(&netns, &container.netns, to, 20_000_000);
        transfer(&container.netns, &netns, from, 20_000_000);
    }
    let counters = door.counters();
    assert_eq!(
        (counters.drops.too_long, counters.drops.refused),
        (0, 0),
        "{counters:?}"
    );
    Ok(())
}

/// Makes a tap interface `eth1` in `netns`, with the first machine's addresses.
fn tap(door: &VdeDoor, netns: &NetNs) -> Result<Program, Failed> {
    let spawn = || {
        let mut command = Command::new("vde_plug2tap");
        command.arg("-s").arg(door.directory()).arg("eth1");
        command.stdin(Stdio::null()).spawn()
    };
    let program = Program(netns.run(spawn)??);
    let configure = || {
        let mut netlink = Netlink::open().unwrap();
        until("making the tap", || netlink.link_by_name("eth1").is_ok());
        let index = netlink.link_by_name("eth1").unwrap().index;
        netlink.set_mac(index, Address::of(1, 1).mac).unwrap();
        netlink.set_up(index, true).unwrap();
        for (address, prefix) in addresses::both(1, number(1)) {
            netlink.add_address(index, address, prefix).unwrap();
        }
    };
    netns.run(configure)?;
    Ok(program)
}
