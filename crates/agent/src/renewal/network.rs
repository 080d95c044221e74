//! Interfaces that get another MAC, other addresses, another name.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use machinist_sys::netlink::{Link, Mac, Netlink, NetlinkError};
use machinist_wire::message::{Failure, Interface};

use crate::init::netlink_failure;

/// Makes the interfaces of `from` those of `to`, one by one, and tells the neighbours of each.
pub(super) fn change(from: &[Interface], to: &[Interface]) -> Result<(), Failure> {
    if to.is_empty() {
        return Ok(());
    }
    let told = |error| Failure::from(netlink_failure(error));
    let mut netlink = Netlink::open().map_err(told)?;
    let links = netlink.links().map_err(told)?;
    let pairs: Vec<(&Interface, &Interface, Link)> = from
        .iter()
        .zip(to)
        .map(|(from, to)| Ok((from, to, find(&links, from)?)))
        .collect::<Result<_, Failure>>()?;
    if from.len() != to.len() {
        return Err(Failure {
            text: format!(
                "the machine has {} network interfaces, and not {}",
                from.len(),
                to.len()
            ),
            errno: 0,
        });
    }
    rename(&mut netlink, &pairs).map_err(told)?;
    for (from, to, link) in &pairs {
        one(&mut netlink, link.index, from, to).map_err(told)?;
    }
    Ok(())
}

fn find(links: &[Link], interface: &Interface) -> Result<Link, Failure> {
    let mac = Mac(interface.mac);
    let found = links.iter().find(|link| link.mac == Some(mac));
    found.cloned().ok_or_else(|| Failure {
        text: format!("there is no network interface {mac}"),
        errno: 0,
    })
}

/// By way of names that nobody has: one's new name may be another's old one.
fn rename(
    netlink: &mut Netlink,
    pairs: &[(&Interface, &Interface, Link)],
) -> Result<(), NetlinkError> {
    let renamed: Vec<_> = pairs
        .iter()
        .filter(|(from, to, _)| from.name != to.name)
        .collect();
    for (_, _, link) in &renamed {
        netlink.set_up(link.index, false)?;
        netlink.rename(link.index, &format!("machinist{}", link.index))?;
    }
    for (_, to, link) in renamed {
        netlink.rename(link.index, &to.name)?;
        netlink.set_up(link.index, true)?;
    }
    Ok(())
}

fn one(
    netlink: &mut Netlink,
    index: u32,
    from: &Interface,
    to: &Interface,
) -> Result<(), NetlinkError> {
    let other = from.mac != to.mac;
    if other {
        // First of all: whatever is sent from here on has the new one.
        netlink.set_mac(index, Mac(to.mac))?;
    }
    if other || from.addresses != to.addresses {
        let link_local = other.then(|| link_local(to)).flatten();
        let wanted: Vec<_> = to.addresses.iter().copied().chain(link_local).collect();
        let there = netlink.addresses(index)?;
        // Of another machine nothing is kept. Of the same one, what it has given itself.
        let gone = there.iter().filter(|address| {
            !wanted.contains(address) && (other || from.addresses.contains(address))
        });
        let gone: Vec<_> = gone.collect();
        // Without this an address takes others of its network with it when it goes.
        let promote = Setting::set("ipv4", &to.name, "promote_secondaries");
        for (address, prefix) in wanted.iter().filter(|address| !there.contains(address)) {
            netlink.add_address(index, *address, *prefix)?;
        }
        for (address, prefix) in gone {
            netlink.delete_address(index, *address, *prefix)?;
        }
        drop(promote);
    }
    announce(netlink, index, to)
}

/// The address that every interface has by itself, made from its MAC; none where it has been told
/// to have none.
fn link_local(interface: &Interface) -> Option<(IpAddr, u8)> {
    let mode = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", interface.name);
    let disabled = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface.name);
    let is = |path: &str, value: &str| {
        fs::read_to_string(path).map_or(value == "1", |text| text.trim() == value)
    };
    if is(&mode, "1") || is(&disabled, "1") {
        return None;
    }
    let [a, b, c, d, e, f] = interface.mac;
    let [high, low] = [[a ^ 2, b, c, 0xff], [0xfe, d, e, f]];
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..12].copy_from_slice(&high);
    bytes[12..].copy_from_slice(&low);
    Some((Ipv6Addr::from(bytes).into(), 64))
}

/// Tells the neighbours of all addresses of an interface: the kernel does so when the MAC is set,
/// also to what it is, if it is asked to.
fn announce(netlink: &mut Netlink, index: u32, interface: &Interface) -> Result<(), NetlinkError> {
    let _v4 = Setting::set("ipv4", &interface.name, "arp_notify");
    let _v6 = Setting::set("ipv6", &interface.name, "ndisc_notify");
    netlink.set_mac(index, Mac(interface.mac))
}

/// A switch of the kernel's that is on for a while. Not all kernels have all of them.
struct Setting {
    path: PathBuf,
    before: Option<String>,
}

impl Setting {
    fn set(family: &str, interface: &str, name: &str) -> Self {
        let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{interface}/{name}"));
        let before = fs::read_to_string(&path).ok();
        let before = before.filter(|text| text.trim() != "1" && fs::write(&path, "1").is_ok());
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            drop(fs::write(&self.path, before));
        }
    }
}
