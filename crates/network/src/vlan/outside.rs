//! Where the outer ends of interfaces are.

use std::fs;
use std::io;

use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Netlink, NetlinkError, VethEnd};

/// The interfaces' numbers begin here: numbers that no inner end has, see [`VethEnd::index`].
const FIRST: u32 = 1 << 20;

/// A network namespace that is held by this process alone: when the process is gone, so is every
/// interface in it, and with it the other end in the container.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) netns: NetNs,
    pub(super) netlink: Netlink,
    /// How many interfaces have been made in it, to name them by.
    made: u32,
}

impl Outside {
    pub(super) fn new() -> io::Result<Result<Self, NetlinkError>> {
        let netns = NetNs::new()?;
        let netlink = netns.run(|| {
            // The outer ends are wires, not hosts: they are to say nothing of their own. Where the
            // kernel has no IPv6, there is nothing to turn off.
            drop(fs::write(
                "/proc/sys/net/ipv6/conf/default/disable_ipv6",
                "1",
            ));
            Netlink::open()
        })?;
        Ok(netlink.map(|netlink| Self {
            netns,
            netlink,
            made: 0,
        }))
    }

    /// Makes a pair: the outer end here, up, and `inner` where it says, down. Returns the number of
    /// the outer one.
    pub(super) fn make(&mut self, inner: VethEnd<'_>) -> Result<u32, NetlinkError> {
        self.made += 1;
        let index = FIRST + self.made;
        let name = format!("p{}", self.made);
        let outer = VethEnd {
            name: &name,
            mac: None,
            mtu: inner.mtu,
            netns: None,
            index: Some(index),
        };
        self.netlink.create_veth(outer, inner)?;
        let set = self.netlink.set_arp(index, false);
        let set = set.and_then(|()| self.netlink.set_up(index, true));
        if set.is_err() {
            self.delete(index);
        }
        set.map(|()| index)
    }

    pub(super) fn delete(&mut self, index: u32) {
        // It is gone already where the container's network namespace is.
        drop(self.netlink.delete(index));
    }
}
