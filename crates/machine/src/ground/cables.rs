//! The cables between a ground's bridges and the containers on it.

use std::collections::HashMap;
use std::io;

use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Link, Netlink, NetlinkError};

use super::Ground;

impl Ground {
    /// The VLAN to whose bridge on this ground `eth1` of a start script's container leads, one of
    /// whose processes `pid` is. Blocks.
    ///
    /// # Errors
    /// There is no such process, the kernel refuses, or there is no ground.
    pub fn first_vlan(&self, pid: u32) -> io::Result<Option<u32>> {
        let list = || Netlink::open().and_then(|mut netlink| netlink.links());
        let inside = NetNs::of_process(pid)?
            .run(list)?
            .map_err(io::Error::other)?;
        let network = self.network().map_err(io::Error::other)?;
        let outside = network.run(list)?.map_err(io::Error::other)?;
        let found = inside.iter().find(|link| link.name == "eth1");
        let bridge = found.and_then(|eth1| {
            let is_peer =
                |link: &&Link| eth1.peer == Some(link.index) && link.peer == Some(eth1.index);
            let index = outside.iter().find(is_peer)?.bridge?;
            let bridge = outside.iter().find(|link| link.index == index)?;
            bridge.name.strip_prefix("br")?.parse().ok()
        });
        Ok(bridge)
    }

    /// Pulls the cables between a start script's container, one of whose processes `pid` is, and the
    /// bridges on this ground, or plugs them in again: that to the bridge of one VLAN, or all. Blocks.
    ///
    /// # Errors
    /// There is no such process, the kernel refuses, or there is no ground.
    pub fn set_links(&self, pid: u32, vlan: Option<u32>, up: bool) -> io::Result<()> {
        let list = || Netlink::open().and_then(|mut netlink| netlink.links());
        let inside = NetNs::of_process(pid)?
            .run(list)?
            .map_err(io::Error::other)?;
        let wanted = vlan.map(|vlan| format!("br{vlan}"));
        let set = || -> Result<(), NetlinkError> {
            let mut netlink = Netlink::open()?;
            let outside = netlink.links()?;
            let names: HashMap<u32, &str> = outside
                .iter()
                .map(|link| (link.index, link.name.as_str()))
                .collect();
            for link in &outside {
                // Each end names the other. Numbers alone are not unique: a container may have
                // pairs of its own.
                let is_pair = inside
                    .iter()
                    .any(|it| it.peer == Some(link.index) && link.peer == Some(it.index));
                let bridge = link.bridge.and_then(|index| names.get(&index).copied());
                if is_pair && bridge.is_some() && (wanted.is_none() || wanted.as_deref() == bridge)
                {
                    netlink.set_up(link.index, up)?;
                }
            }
            Ok(())
        };
        let network = self.network().map_err(io::Error::other)?;
        network.run(set)?.map_err(io::Error::other)
    }
}
