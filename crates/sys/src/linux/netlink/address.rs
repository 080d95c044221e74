//! Addresses that interfaces have.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::socket::Request;
use super::{Netlink, NetlinkError};

const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

impl Netlink {
    /// The addresses of an interface with the lengths of their prefixes.
    ///
    /// # Errors
    /// Where the kernel refuses or its reply makes no sense.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let mut addresses = Vec::new();
        let request = Request {
            kind: RTM_GETADDR,
            flags: 0,
            body: &AddressMessage::default(),
            doing: &|| format!("list the addresses of network interface {index}"),
        };
        self.list(&request, |body| {
            let (owner, found) = read_address(body)?;
            addresses.extend(found.filter(|_| owner == index));
            Ok(())
        })?;
        Ok(addresses)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// Where the kernel refuses: mostly since the interface does not have it.
    pub fn delete_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(address));
        self.ask(&Request {
            kind: RTM_DELADDR,
            flags: 0,
            body: &message,
            doing: &|| {
                format!("take the address {address}/{prefix} from network interface {index}")
            },
        })
    }
}

/// Reads the few things of an `RTM_NEWADDR` that we want to know: whose address, and which.
fn read_address(body: &[u8]) -> Result<(u32, Option<(IpAddr, u8)>), NetlinkError> {
    let malformed = |what: &str| NetlinkError::Malformed {
        what: what.to_owned(),
    };
    // struct ifaddrmsg: family, length of the prefix, flags, scope, index (u32).
    let header = body
        .first_chunk::<8>()
        .ok_or_else(|| malformed("an address without a header"))?;
    let [_, prefix, _, _, index @ ..] = *header;
    let mut found = None;
    let attributes = body.get(AddressMessage::default().buffer_len()..);
    for attribute in NlasIterator::new(attributes.unwrap_or_default()) {
        let attribute: NlaBuffer<&[u8]> =
            attribute.map_err(|_| malformed("an address with a broken attribute"))?;
        let address = || -> Option<IpAddr> {
            let value = attribute.value();
            let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
                .ok()
        };
        match attribute.kind() {
            // Where both are there, the other one is the far end's.
            IFA_LOCAL => found = address().or(found),
            IFA_ADDRESS => found = found.or_else(address),
            _ => {}
        }
    }
    let address = found.map(|address| (address, prefix));
    Ok((u32::from_ne_bytes(index), address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::NetNs;

    #[test]
    fn a_cut_reply_is_an_error() {
        for length in 0..8 {
            assert!(read_address(&vec![0; length]).is_err(), "{length}");
        }
        let mut body = vec![0; 8];
        body.extend([200, 0, 1, 0, 127]);
        assert!(read_address(&body).is_err());
    }

    #[test]
    fn addresses_come_and_go() {
        let Ok(netns) = NetNs::new() else {
            eprintln!("skipped: this needs CAP_SYS_ADMIN");
            return;
        };
        let mut netlink = netns.run(Netlink::open).unwrap().unwrap();
        netlink.loopback_up().unwrap();
        let before = netlink.addresses(1).unwrap();
        assert!(
            before.contains(&("127.0.0.1".parse().unwrap(), 8)),
            "{before:?}"
        );
        for address in ["192.168.1.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            netlink.add_address(1, address, prefix).unwrap();
            assert!(netlink.addresses(1).unwrap().contains(&(address, prefix)));
            netlink.delete_address(1, address, prefix).unwrap();
            netlink.delete_address(1, address, prefix).unwrap_err();
        }
        assert_eq!(netlink.addresses(1).unwrap(), before);
        assert_eq!(netlink.addresses(77).unwrap(), []);
    }
}
