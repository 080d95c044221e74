//! A kernel's bridge in the place where start scripts of containers make one.

use std::os::fd::AsFd;
use std::time::Duration;

use libtest_mimic::Failed;
use machinist_network::{AttachError, NetNs, Vlan, addresses, bridge};
use machinist_sys::netlink::{Netlink, VethEnd};

use super::life::links;
use crate::lab::{Address, Container, Sockets, id, number};
use crate::plug;
use crate::traffic::{PATIENCE, transfer, udp, udp_passes, udp_ping};
use crate::vm::Vm;

const MUCH: usize = 100_000_000;

/// Where the scripts run.
struct Host(NetNs);

/// A container as a start script makes it. Dropping it is the end of the script.
struct Scripted<'a> {
    host: &'a Host,
    bridge: String,
    name: String,
    netns: NetNs,
    address: Address,
}

impl Host {
    fn run<R: Send>(&self, f: impl FnOnce(&mut Netlink) -> R + Send) -> R {
        let run = || f(&mut Netlink::open().unwrap());
        self.0.run(run).unwrap()
    }

    /// Makes the bridge unless it is there, puts the tap into it, and a cable to the container.
    fn start(&self, vlan: &Vlan, n: usize) -> Scripted<'_> {
        let (number, bridge, name) = (n, format!("br{}", vlan.id()), format!("c{n}-eth1"));
        let (netns, tap) = (NetNs::new().unwrap(), format!("vde-tap{}", vlan.id()));
        let address = Address::of(id(vlan), n);
        self.run(|netlink| {
            if netlink.link_by_name(&bridge).is_err() {
                netlink.create_bridge(&bridge).unwrap();
            }
            let master = netlink.link_by_name(&bridge).unwrap().index;
            netlink.set_up(master, true).unwrap();
            let end = |name, mac, netns| VethEnd {
                name,
                mac,
                mtu: 1500,
                netns,
                index: None,
            };
            let inner = end("eth1", Some(address.mac), Some(netns.as_fd()));
            netlink.create_veth(end(&name, None, None), inner).unwrap();
            for member in [&tap, &name] {
                let index = netlink.link_by_name(member).unwrap().index;
                netlink.set_bridge(index, Some(master)).unwrap();
                netlink.set_up(index, true).unwrap();
            }
        });
        let configure = || {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link_by_name("eth1").unwrap().index;
            netlink.loopback_up().unwrap();
            netlink.set_up(index, true).unwrap();
            for (address, prefix) in addresses::both(id(vlan), self::number(number)) {
                netlink.add_address(index, address, prefix).unwrap();
            }
            assert!(netlink.wait_until_running(index, PATIENCE).unwrap());
        };
        netns.run(configure).unwrap();
        Scripted {
            host: self,
            bridge,
            name,
            netns,
            address,
        }
    }
}

impl Scripted<'_> {
    /// The last script of a VLAN to end takes its bridge away.
    fn stop(self, last: bool) {
        self.host.run(|netlink| {
            let index = netlink.link_by_name(&self.name).unwrap().index;
            netlink.delete(index).unwrap();
            if last {
                let index = netlink.link_by_name(&self.bridge).unwrap().index;
                netlink.delete(index).unwrap();
            }
        });
    }
}

pub fn joined() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(7)?, Sockets::new());
    let host = Host(NetNs::new()?);
    let tap = vlan.attach_tap(&host.0)?;
    assert_eq!(tap.name(), "vde-tap7");
    let (stream, vde) = (Vm::new(&vlan, 1, &sockets), plug::vm(&vlan, 2, &sockets));
    let plain = Container::new(&vlan, 3);
    let others = [
        (&stream.netns, stream.address),
        (&vde.netns, vde.address),
        (&plain.netns, plain.address),
    ];
    // Bridges come and go.
    for last in [false, true] {
        let (a, b) = (host.start(&vlan, 4), host.start(&vlan, 5));
        for (netns, address) in others {
            for (from, to) in a.address.both().into_iter().zip(address.both()) {
                udp_ping(&a.netns, from, netns, to, 100);
                udp_ping(netns, to, &a.netns, from, 60_000);
            }
        }
        let (from, to) = (a.address.v4.into(), b.address.v4.into());
        udp_ping(&a.netns, from, &b.netns, to, 100);
        b.stop(false);
        if last {
            transfer(&a.netns, &vde.netns, vde.address.v4.into(), MUCH);
            transfer(&vde.netns, &a.netns, a.address.v6.into(), MUCH);
            transfer(&a.netns, &plain.netns, plain.address.v6.into(), MUCH);
            transfer(&plain.netns, &a.netns, a.address.v4.into(), MUCH);
        }
        a.stop(true);
        assert_eq!(links(&host.0), ["lo", "vde-tap7"]);
    }
    let counters = tap.counters();
    // Long packets pass the bridge uncut.
    assert!(
        counters.received.bytes / counters.received.frames > 1514,
        "{counters:?}"
    );
    assert_eq!(
        (counters.drops.too_long, counters.drops.refused),
        (0, 0),
        "{counters:?}"
    );
    drop(tap);
    assert_eq!(links(&host.0), ["lo"]);
    Ok(())
}

/// Two VLANs in one place do not mix, each has its own cable, and a name is had once.
pub fn taps() -> Result<(), Failed> {
    let host = Host(NetNs::new()?);
    let (one, two) = (Vlan::numbered(1)?, Vlan::numbered(1000)?);
    let (tap, other) = (one.attach_tap(&host.0)?, two.attach_tap(&host.0)?);
    assert_eq!(links(&host.0), ["lo", "vde-tap1", "vde-tap1000"]);
    let taken = Vlan::new(1)?.attach_tap(&host.0).unwrap_err();
    assert!(matches!(taken, AttachError::Taken { .. }), "{taken}");
    assert!(taken.to_string().contains("vde-tap1"), "{taken}");
    drop(other);
    assert_eq!(links(&host.0), ["lo", "vde-tap1"]);

    let (a, b) = (host.start(&one, 1), Container::new(&one, 2));
    let from = udp(&a.netns, a.address.v4.into(), 0);
    let to = udp(&b.netns, b.address.v4.into(), 0);
    assert!(udp_passes(&from, &to, PATIENCE));
    tap.set_up(false);
    assert!(!udp_passes(&from, &to, Duration::from_millis(300)));
    tap.set_up(true);
    assert!(udp_passes(&from, &to, PATIENCE));
    // Or the cable between bridge and container, of which neither notices.
    bridge::set_cable(&host.0, &a.name, false)?;
    host.run(|netlink| {
        let link = netlink.link_by_name(&a.name).unwrap();
        assert!(link.up && link.running, "{link:?}");
    });
    assert!(!udp_passes(&from, &to, Duration::from_millis(300)));
    bridge::set_cable(&host.0, &a.name, true)?;
    assert!(udp_passes(&from, &to, PATIENCE));
    let gone = bridge::set_cable(&host.0, "c9-eth1", true).unwrap_err();
    assert!(gone.to_string().contains("c9-eth1"), "{gone}");
    // Somebody takes the tap away.
    host.run(|netlink| {
        let index = netlink.link_by_name("vde-tap1").unwrap().index;
        netlink.delete(index).unwrap();
    });
    drop(tap);
    let again = one.attach_tap(&host.0)?;
    assert_eq!(again.name(), "vde-tap1");
    a.stop(true);
    // Too long a name for an interface.
    let far = Vlan::numbered(u32::MAX)?.attach_tap(&host.0).unwrap_err();
    assert!(far.to_string().contains("vde-tap4294967295"), "{far}");
    Ok(())
}
