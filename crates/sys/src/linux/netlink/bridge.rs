//! Bridges, and what is put into them.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkProtoInfoBridge,
};

use super::link::{RTM_NEWLINK, link_message};
use super::socket::Request;
use super::{Netlink, NetlinkError};

// The kernel's numbers for a port's state, in the attribute of this number.
const IFLA_BRPORT_STATE: u16 = 1;
const DISABLED: u8 = 0;
const FORWARDING: u8 = 3;

impl Netlink {
    /// Makes a bridge, which is down and has nothing in it.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, without the `bridge` module, or where the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let kind = vec![LinkInfo::Kind(InfoKind::Bridge)];
        message.attributes.push(LinkAttribute::LinkInfo(kind));
        self.ask(&Request {
            kind: RTM_NEWLINK,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            body: &message,
            doing: &|| format!("create the bridge {name}"),
        })
    }

    /// Puts an interface into the bridge with number `bridge`, or takes it out of its bridge.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_bridge(&mut self, index: u32, bridge: Option<u32>) -> Result<(), NetlinkError> {
        let mut message = link_message(index);
        // No interface has the number 0.
        message
            .attributes
            .push(LinkAttribute::Controller(bridge.unwrap_or(0)));
        self.set_link(&message, &|| match bridge {
            Some(bridge) => format!("put network interface {index} into the bridge {bridge}"),
            None => format!("take network interface {index} out of its bridge"),
        })
    }

    /// Lets frames pass between an interface in a bridge and the bridge, or none. The carrier stays,
    /// on both sides; when it goes and comes back, frames pass again.
    ///
    /// # Errors
    /// Where the kernel refuses: the interface is in no bridge, or down.
    pub fn set_bridge_port(&mut self, index: u32, pass: bool) -> Result<(), NetlinkError> {
        let state = if pass { FORWARDING } else { DISABLED };
        let state = LinkProtoInfoBridge::Other(DefaultNla::new(IFLA_BRPORT_STATE, vec![state]));
        let mut message = link_message(index);
        // Said to the bridge and not to the interface: that would have the bridge look at the
        // carrier, and enable the port again.
        message.header.interface_family = AddressFamily::Bridge;
        let info = LinkAttribute::ProtoInfoBridge(vec![state]);
        message.attributes.push(info);
        self.set_link(&message, &|| {
            let verb = if pass { "pass" } else { "pass no" };
            format!("let network interface {index} {verb} frames to and from its bridge")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::NetNs;

    #[test]
    fn what_is_no_ethernet_is_not_put_into_a_bridge() {
        let Ok(netns) = NetNs::new() else {
            eprintln!("skipped: this needs CAP_SYS_ADMIN");
            return;
        };
        netns
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.create_bridge("br1").unwrap();
                let again = netlink.create_bridge("br1").unwrap_err();
                assert_eq!(again.os_error(), Some(libc::EEXIST), "{again}");
                netlink.create_bridge("br2").unwrap();
                let index = |netlink: &mut Netlink, name| netlink.link_by_name(name).unwrap().index;
                let (one, two) = (index(&mut netlink, "br1"), index(&mut netlink, "br2"));
                // A bridge cannot be put into another, nor the loopback.
                assert!(netlink.set_bridge(two, Some(one)).is_err());
                let refused = netlink.set_bridge(1, Some(one)).unwrap_err();
                assert!(refused.to_string().contains("into the bridge"), "{refused}");
                netlink.set_bridge(1, None).unwrap();
                assert!(netlink.set_bridge_port(1, false).is_err());
            })
            .unwrap();
    }
}
