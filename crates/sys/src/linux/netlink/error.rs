//! What goes wrong with network interfaces.

use std::fmt;
use std::io;

/// Why a network interface could not be made or configured.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no netlink socket to be had.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel took the request and said no.
    #[error("cannot {doing}{mend}")]
    Refused {
        /// What was asked for, as "create the veth pair p1 and eth1".
        doing: String,
        /// How to mend it, where that is known; empty or beginning with " (".
        mend: Mend,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface has this name.
    #[error("there is no network interface {name}")]
    NoSuchName {
        /// The name that was looked for.
        name: String,
    },
    /// No interface has this MAC address.
    #[error("there is no network interface with the MAC address {mac}")]
    NoSuchMac {
        /// The address that was looked for.
        mac: super::Mac,
    },
    /// The kernel's reply makes no sense.
    #[error("the kernel's netlink reply makes no sense: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

/// The advice in a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mend(&'static str);

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl NetlinkError {
    pub(super) fn refused(doing: String, errno: i32, makes_veth: bool) -> Self {
        let mend = match errno {
            libc::EPERM | libc::EACCES => {
                " (this needs CAP_NET_ADMIN: run as root, or in a user namespace of your own)"
            }
            libc::EOPNOTSUPP if makes_veth => {
                " (the kernel has no veth interfaces: load the module with `modprobe veth`)"
            }
            _ => "",
        };
        Self::Refused {
            doing,
            mend: Mend(mend),
            source: io::Error::from_raw_os_error(errno),
        }
    }

    /// What the kernel said, where it said anything.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::NoSuchName { .. } | Self::NoSuchMac { .. } | Self::Malformed { .. } => None,
        }
    }
}
