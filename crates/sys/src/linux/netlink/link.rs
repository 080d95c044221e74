//! Interfaces and their addresses.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NlaBuffer, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::socket::Request;
use super::{Mac, Netlink, NetlinkError};

// The kernel's numbers for the messages and attributes that are read by hand.
pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_OPERSTATE: u16 = 16;
/// `IF_OPER_UP` of RFC 2863.
const OPERATIONAL: &[u8] = &[6];
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;

/// A network interface, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, by which it is configured.
    pub index: u32,
    /// Its name, like `eth1`.
    pub name: String,
    /// Its MAC address, if it is an Ethernet.
    pub mac: Option<Mac>,
    /// The longest packet it carries, in bytes without the Ethernet header.
    pub mtu: u32,
    /// Whether it has been set up.
    pub up: bool,
    /// Whether it carries frames: it is up, its cable is in, and the kernel has taken note of both.
    /// Never so for interfaces without a cable, like the loopback.
    pub running: bool,
    /// For one end of a pair: the number of the other end, in that one's network namespace.
    pub peer: Option<u32>,
    /// The number of the bridge that it is in.
    pub bridge: Option<u32>,
}

/// One end of a veth pair that is to be.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The interface's name, 1 to 15 bytes.
    pub name: &'a str,
    /// Its MAC address; `None` for a random one.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The network namespace to put it in; `None` for that of the [`Netlink`].
    pub netns: Option<BorrowedFd<'a>>,
    /// The kernel's number for it, from 1; `None` for the next one that is free.
    ///
    /// Where both ends have the same number, each in its namespace, the kernel takes the pair for
    /// an interface without a peer, and may take a second to note that its cable is in.
    pub index: Option<u32>,
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// Where the kernel refuses or its reply makes no sense.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        let request = Request {
            kind: RTM_GETLINK,
            flags: 0,
            body: &LinkMessage::default(),
            doing: &|| "list the network interfaces".to_owned(),
        };
        self.list(&request, |body| {
            links.push(read_link(body)?);
            Ok(())
        })?;
        Ok(links)
    }

    /// The interface with this name.
    ///
    /// # Errors
    /// [`NetlinkError::NoSuchName`], and those of [`Netlink::links`].
    pub fn link_by_name(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| NetlinkError::NoSuchName {
            name: name.to_owned(),
        })
    }

    /// The first interface with this MAC address.
    ///
    /// # Errors
    /// [`NetlinkError::NoSuchMac`], and those of [`Netlink::links`].
    pub fn link_by_mac(&mut self, mac: Mac) -> Result<Link, NetlinkError> {
        let found = self.links()?.into_iter().find(|link| link.mac == Some(mac));
        found.ok_or(NetlinkError::NoSuchMac { mac })
    }

    /// Makes a pair of Ethernets joined by a cable, both still down. Deleting one end deletes both.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` over both namespaces, without the `veth` module, or where a name is
    /// taken.
    pub fn create_veth(&mut self, end: VethEnd<'_>, peer: VethEnd<'_>) -> Result<(), NetlinkError> {
        let mut message = veth_end(end);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(veth_end(peer)))),
        ]));
        self.ask(&Request {
            kind: RTM_NEWLINK,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            body: &message,
            doing: &|| format!("create the veth pair {} and {}", end.name, peer.name),
        })
    }

    /// Waits until an interface carries frames, and tells whether it does.
    ///
    /// Setting it up is not the end: the kernel notes a carrier in a task of its own, and until then
    /// it drops what is sent, without a word.
    ///
    /// # Errors
    /// Those of [`Netlink::links`].
    pub fn wait_until_running(
        &mut self,
        index: u32,
        within: Duration,
    ) -> Result<bool, NetlinkError> {
        let begun = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            let links = self.links()?;
            if links.iter().any(|link| link.index == index && link.running) {
                // What is listed is not locked: it is running, and its queue may still be about to
                // be opened. A change that changes nothing waits until that task is through.
                self.set_link(&link_message(index), &|| {
                    format!("wait for network interface {index}")
                })?;
                return Ok(true);
            }
            if begun.elapsed() >= within {
                return Ok(false);
            }
            // Its messages about links come through the same task, and are no sooner.
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let state = if up { "up" } else { "down" };
        self.set_flag(index, LinkFlags::Up, up, &|| {
            format!("set network interface {index} {state}")
        })
    }

    /// Turns neighbour discovery by ARP on or off for an interface.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_arp(&mut self, index: u32, on: bool) -> Result<(), NetlinkError> {
        self.set_flag(index, LinkFlags::Noarp, !on, &|| {
            format!("turn ARP on or off on network interface {index}")
        })
    }

    /// Gives an interface, which must be down, another name.
    ///
    /// # Errors
    /// Where the kernel refuses: the interface is up, or the name is taken or unusable.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::IfName(name.to_owned());
        self.set_attribute(index, attribute, &|| {
            format!("rename network interface {index} to {name}")
        })
    }

    /// Gives an interface another MAC address.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::Address(mac.0.to_vec());
        self.set_attribute(index, attribute, &|| {
            format!("give network interface {index} the MAC address {mac}")
        })
    }

    /// Sets the longest packet that an interface carries, in bytes without the Ethernet header.
    ///
    /// # Errors
    /// Where the kernel refuses: mostly an MTU out of the interface's range.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_attribute(index, LinkAttribute::Mtu(mtu), &|| {
            format!("set the MTU of network interface {index} to {mtu}")
        })
    }

    /// Gives an interface an address with its prefix length. IPv6 addresses are usable at once:
    /// no search for duplicates is made.
    ///
    /// # Errors
    /// Where the kernel refuses: the interface has the address already, or IPv6 is off.
    pub fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        match address {
            IpAddr::V4(v4) => {
                message.header.family = AddressFamily::Inet;
                // Host bits all set. A /31 or /32 has no broadcast address.
                if prefix < 31 {
                    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                    let broadcast = (u32::from(v4) | hosts).into();
                    message
                        .attributes
                        .push(AddressAttribute::Broadcast(broadcast));
                }
            }
            IpAddr::V6(_) => {
                message.header.family = AddressFamily::Inet6;
                message.header.flags = AddressHeaderFlags::Nodad;
            }
        }
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        self.ask(&Request {
            kind: RTM_NEWADDR,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            body: &message,
            doing: &|| format!("give network interface {index} the address {address}/{prefix}"),
        })
    }

    /// Deletes an interface; of a veth pair, both ends.
    ///
    /// # Errors
    /// Where the kernel refuses: there is no such interface, or it is of a kind that stays.
    pub fn delete(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.ask(&Request {
            kind: RTM_DELLINK,
            flags: 0,
            body: &link_message(index),
            doing: &|| format!("delete network interface {index}"),
        })
    }

    /// Sets the loopback interface up; the kernel gives it 127.0.0.1 and ::1.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn loopback_up(&mut self) -> Result<(), NetlinkError> {
        // In every network namespace the loopback is the first interface.
        self.set_up(1, true)
    }

    fn set_flag(
        &mut self,
        index: u32,
        flag: LinkFlags,
        on: bool,
        doing: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let mut message = link_message(index);
        message.header.change_mask = flag;
        if on {
            message.header.flags = flag;
        }
        self.set_link(&message, doing)
    }

    fn set_attribute(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        doing: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let mut message = link_message(index);
        message.attributes.push(attribute);
        self.set_link(&message, doing)
    }

    pub(super) fn set_link(
        &mut self,
        message: &LinkMessage,
        doing: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.ask(&Request {
            kind: RTM_SETLINK,
            flags: 0,
            body: message,
            doing,
        })
    }
}

pub(super) fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn veth_end(end: VethEnd<'_>) -> LinkMessage {
    let mut message = link_message(end.index.unwrap_or(0));
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    attributes.push(LinkAttribute::Mtu(end.mtu));
    if let Some(mac) = end.mac {
        attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(netns) = end.netns {
        attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    message
}

/// Reads the few things of an `RTM_NEWLINK` that we want to know.
fn read_link(body: &[u8]) -> Result<Link, NetlinkError> {
    let malformed = |what: &str| NetlinkError::Malformed {
        what: what.to_owned(),
    };
    // struct ifinfomsg: family, padding, type (u16), index (i32), flags (u32), change mask.
    let word = |at: usize| -> Option<u32> {
        let bytes = body.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let index = word(4).ok_or_else(|| malformed("a link without an index"))?;
    let flags = word(8).ok_or_else(|| malformed("a link without flags"))?;
    let flags = LinkFlags::from_bits_retain(flags);
    let mut link = Link {
        index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        peer: None,
        bridge: None,
    };
    let attributes = body.get(LinkMessage::default().buffer_len()..);
    for attribute in NlasIterator::new(attributes.unwrap_or_default()) {
        let attribute: NlaBuffer<&[u8]> =
            attribute.map_err(|_| malformed("a link with a broken attribute"))?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_LINK => link.peer = value.try_into().ok().map(u32::from_ne_bytes),
            IFLA_MASTER => link.bridge = value.try_into().ok().map(u32::from_ne_bytes),
            // The flag alone is set, too, while the state is unknown: in a new interface, until the
            // kernel has looked at its cable for the first time.
            IFLA_OPERSTATE => {
                link.running = flags.contains(LinkFlags::Running) && value == OPERATIONAL
            }
            IFLA_MTU => link.mtu = value.try_into().map_or(0, u32::from_ne_bytes),
            _ => {}
        }
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::namespace::NetNs;

    #[test]
    fn links_of_this_machine_are_read() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link_by_name("lo").unwrap();
        assert_eq!(lo.index, 1);
        assert!(matches!(
            netlink.link_by_name("nosuch"),
            Err(NetlinkError::NoSuchName { .. })
        ));
    }

    #[test]
    fn a_cut_reply_is_an_error() {
        for length in 0..12 {
            assert!(read_link(&vec![0; length]).is_err(), "{length}");
        }
        let mut body = vec![0; 16];
        body.extend([200, 0, 3, 0, b'x']);
        assert!(read_link(&body).is_err());
    }

    /// Whether this process may make network namespaces; says so if not.
    fn may_make_namespaces() -> bool {
        let may = NetNs::new().is_ok();
        if !may {
            eprintln!("skipped: this needs CAP_SYS_ADMIN");
        }
        may
    }

    #[test]
    fn a_veth_pair_is_made_configured_and_gone() {
        if !may_make_namespaces() {
            return;
        }
        let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let mac = Mac([0x52, 0x54, 0, 0x12, 1, 1]);
        let mut outer = here.run(Netlink::open).unwrap().unwrap();
        let mut inner = there.run(Netlink::open).unwrap().unwrap();
        let end = VethEnd {
            name: "p1",
            mac: None,
            mtu: 9000,
            netns: None,
            index: Some(77),
        };
        let peer = VethEnd {
            name: "first",
            mac: Some(mac),
            mtu: 1500,
            netns: Some(there.as_fd()),
            index: None,
        };
        outer.create_veth(end, peer).unwrap();
        let again = outer.create_veth(end, peer).unwrap_err();
        assert_eq!(again.os_error(), Some(libc::EEXIST), "{again}");

        let link = inner.link_by_mac(mac).unwrap();
        assert_eq!(
            (link.name.as_str(), link.mtu, link.up),
            ("first", 1500, false)
        );
        inner.rename(link.index, "eth1").unwrap();
        let other = Mac([0x52, 0x54, 0, 0x12, 1, 2]);
        inner.set_mac(link.index, other).unwrap();
        inner.set_mtu(link.index, 4000).unwrap();
        inner.set_up(link.index, true).unwrap();
        inner.loopback_up().unwrap();
        inner
            .add_address(link.index, "192.168.1.1".parse().unwrap(), 24)
            .unwrap();
        inner
            .add_address(link.index, "2001:db8:1::1".parse().unwrap(), 64)
            .unwrap();
        let link = inner.link_by_name("eth1").unwrap();
        assert_eq!((link.mac, link.mtu, link.up), (Some(other), 4000, true));
        // The addresses are usable at once.
        for address in [
            "192.168.1.1:0",
            "[2001:db8:1::1]:0",
            "127.0.0.1:0",
            "[::1]:0",
        ] {
            there
                .run(|| std::net::UdpSocket::bind(address))
                .unwrap()
                .expect(address);
        }

        assert_eq!(outer.link_by_name("p1").unwrap().index, 77);
        outer.delete(77).unwrap();
        assert!(matches!(
            inner.link_by_name("eth1"),
            Err(NetlinkError::NoSuchName { .. })
        ));
    }
}
