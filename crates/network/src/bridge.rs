//! The cables of containers whose start scripts have put them into a kernel's bridge.

use std::io;

use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Netlink, NetlinkError};

/// Why a container's cable cannot be pulled or plugged in.
#[derive(Debug, thiserror::Error)]
pub enum CableError {
    /// The network namespace that start scripts run in cannot be entered.
    #[error("cannot enter the network namespace of the bridge that {interface} is in")]
    Enter {
        /// The interface.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such cable, or the kernel does not let go of it.
    #[error("cannot change the cable {interface}")]
    Change {
        /// The interface.
        interface: String,
        /// What was tried, and what the system said.
        #[source]
        source: NetlinkError,
    },
}

/// Pulls the cable between a bridge and a container (`false`) or plugs it in again: `interface` is
/// its end in the bridge, in the network namespace `netns`, which scripts of NixOS tests call
/// `<container>-<interface>`, like `web-eth1`. The container does not notice, only nothing passes.
///
/// # Errors
/// Where there is no such interface, or it is in no bridge.
pub fn set_cable(netns: &NetNs, interface: &str, up: bool) -> Result<(), CableError> {
    let change = || {
        let mut netlink = Netlink::open()?;
        let index = netlink.link_by_name(interface)?.index;
        netlink.set_bridge_port(index, up)
    };
    let entered = netns.run(change).map_err(|source| CableError::Enter {
        interface: interface.to_owned(),
        source,
    })?;
    entered.map_err(|source| CableError::Change {
        interface: interface.to_owned(),
        source,
    })
}
