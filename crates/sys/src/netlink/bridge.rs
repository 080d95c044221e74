//! Bridges, and what is put into them.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::link::{RTM_NEWLINK, link_message};
use super::socket::Request;
use super::{Netlink, NetlinkError};

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
            })
            .unwrap();
    }
}
