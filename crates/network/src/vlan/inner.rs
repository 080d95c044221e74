//! The ends of interfaces that machines see.

use std::fs;
use std::time::Duration;

use machinist_sys::ethtool;
use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Netlink, NetlinkError};

use super::VethSpec;
use crate::error::AttachError;

/// How long the kernel may take to note that a veth pair's cable is in. Microseconds are usual, as
/// the ends have different numbers (see `Outside::make`); otherwise it may be a second.
pub(super) const CARRIER: Duration = Duration::from_secs(5);

/// Offloads that the switch neither passes on nor finishes: packets within packets, and protocols
/// that are cut or summed in other ways than TCP and UDP. Without them the container's kernel does
/// the work.
const FOREIGN_OFFLOADS: &[&str] = &[
    "tx-checksum-sctp",
    "tx-checksum-fcoe-crc",
    "tx-esp-segmentation",
    "tx-fcoe-segmentation",
    "tx-gre-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gso-list",
    "tx-gso-partial",
    "tx-gso-robust",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-sctp-segmentation",
    "tx-tunnel-remcsum-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-udp_tnl-segmentation",
];

/// Sets the container's end up with its addresses.
pub(super) fn configure(port: &str, spec: &VethSpec) -> Result<(), AttachError> {
    inside(port, &spec.netns, &spec.ifname, || {
        // No second of waiting whether somebody else has the link-local address. Best effort: in
        // some containers these files are read-only.
        let file = format!("/proc/sys/net/ipv6/conf/{}/accept_dad", spec.ifname);
        drop(fs::write(file, "0"));
        bring_up(spec)
    })
}

/// Sets the visible end of a VLAN's wire up. It is a wire too, and says nothing of its own: whoever
/// puts it into a bridge gives the bridge what addresses it is to have.
pub(super) fn configure_wire(netns: &NetNs, ifname: &str) -> Result<(), AttachError> {
    inside(ifname, netns, ifname, || {
        // Where the kernel has no IPv6, there is nothing to turn off.
        let file = format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6");
        drop(fs::write(file, "1"));
        let mut netlink = Netlink::open()?;
        let index = netlink.link_by_name(ifname)?.index;
        netlink.set_arp(index, false)?;
        netlink.set_up(index, true)?;
        netlink.wait_until_running(index, CARRIER)?;
        Ok(())
    })
}

/// Turns the foreign offloads of an interface off, and then does `configure`, in its namespace.
fn inside(
    port: &str,
    netns: &NetNs,
    ifname: &str,
    configure: impl FnOnce() -> Result<(), NetlinkError> + Send,
) -> Result<(), AttachError> {
    let entered = netns.run(|| {
        let offloads = ethtool::turn_off(ifname, FOREIGN_OFFLOADS);
        offloads.map_err(|source| AttachError::Offloads {
            port: port.to_owned(),
            interface: ifname.to_owned(),
            source,
        })?;
        configure().map_err(|source| AttachError::Interface {
            port: port.to_owned(),
            source,
        })
    });
    entered.map_err(|source| AttachError::Enter {
        port: port.to_owned(),
        source,
    })?
}

fn bring_up(spec: &VethSpec) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    netlink.loopback_up()?;
    let index = netlink.link_by_name(&spec.ifname)?.index;
    netlink.set_up(index, true)?;
    for (address, prefix) in &spec.addresses {
        netlink.add_address(index, *address, *prefix)?;
    }
    netlink.wait_until_running(index, CARRIER)?;
    Ok(())
}
