//! What goes wrong in making a VLAN and attaching to it.

use std::io;
use std::path::PathBuf;

use machinist_sys::netlink::NetlinkError;
use rustix::io::Errno;

use crate::door::DirectoryError;

/// Why a VLAN cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VlanError {
    /// VLANs are numbered from 1 to 254.
    #[error("VLAN {vlan} is out of range: VLANs are numbered from 1 to 254")]
    Number {
        /// The number that was asked for.
        vlan: u8,
    },
    /// What the switch needs from the system is not to be had.
    #[error("cannot start the switch of VLAN {vlan}")]
    Start {
        /// The VLAN's number.
        vlan: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a machine cannot be attached to a VLAN.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The socket for a virtual machine cannot be made.
    #[error("cannot listen for the virtual machine of port {port} at {}", path.display())]
    Listen {
        /// The port's name.
        port: String,
        /// Where the socket was to be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no network namespace for the outer ends of containers' interfaces.
    #[error(
        "cannot make a network namespace for the switch of VLAN {vlan} \
         (this needs CAP_SYS_ADMIN: run as root, or in a user namespace of your own)"
    )]
    Namespace {
        /// The VLAN's number.
        vlan: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The container's network namespace cannot be entered.
    #[error("cannot enter the network namespace of port {port}'s machine")]
    Enter {
        /// The port's name.
        port: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The container's interface cannot be made or configured.
    #[error("cannot attach port {port}")]
    Interface {
        /// The port's name.
        port: String,
        /// What was tried, and what the system said.
        #[source]
        source: NetlinkError,
    },
    /// What the container's kernel leaves to its network card cannot be limited.
    #[error("cannot turn off the offloads of interface {interface} for port {port}")]
    Offloads {
        /// The port's name.
        port: String,
        /// The interface in the container.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The outer end of the container's interface cannot be read.
    #[error(
        "cannot read the frames of port {port} \
         (this needs CAP_NET_RAW and packet sockets in the kernel: CONFIG_PACKET, `modprobe af_packet`)"
    )]
    Packets {
        /// The port's name.
        port: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The switch takes no more ports.
    #[error("the switch of VLAN {vlan} does not take port {port}")]
    Refused {
        /// The VLAN's number.
        vlan: u32,
        /// The port's name.
        port: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is an interface of this name where containers' start scripts run.
    #[error(
        "there is a network interface {interface} already where the start scripts of containers \
         run: does another test run there?"
    )]
    Taken {
        /// The interface.
        interface: String,
    },
    /// VDE clients cannot be served.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl AttachError {
    /// This error, unless it says that the interface's name is taken.
    pub(crate) fn or_taken(self, interface: &str) -> Self {
        match self {
            Self::Interface { source, .. }
                if source.os_error() == Some(Errno::EXIST.raw_os_error()) =>
            {
                Self::Taken {
                    interface: interface.to_owned(),
                }
            }
            other => other,
        }
    }
}
