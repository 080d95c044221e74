//! The card by which a VM reaches what the host reaches.

use super::argv::{Argv, card};
use crate::spec::UPLINK_MAC;

/// The card by which a VM reaches what the host reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uplink {
    /// There is none.
    No,
    /// It is there, and its wire leads nowhere.
    Nowhere,
    /// It does.
    Open,
}

impl Uplink {
    pub(super) fn add(self, argv: &mut Argv) {
        let netdev = match self {
            Self::No => return,
            // Of no VLAN's number.
            Self::Nowhere => {
                // Another port, so that there is somebody to throw away what is sent: else the
                // guest's queue stands still, and its kernel complains.
                argv.option("-netdev", "hubport,id=sink,hubid=1000");
                "hubport,id=uplink,hubid=1000"
            }
            // Nobody reaches the guest by it, and it lends the guest no address that the host may
            // not have.
            Self::Open => "user,id=uplink,ipv6=off",
        };
        argv.option("-netdev", netdev);
        card("uplink", UPLINK_MAC, argv);
    }
}
