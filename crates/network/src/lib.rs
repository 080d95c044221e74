//! The switch of a VLAN, its ports, and the machines' addresses.
//!
//! A [`Vlan`] is one Ethernet segment of a lab: a switch in user space on a thread of its own. A
//! machine hangs on it by a [`Port`]: a virtual machine by a Unix socket that QEMU's `stream`
//! network backend connects to, a container by a pair of joined interfaces (veth), whose outer end
//! the switch reads and writes. Clients of the VDE protocol come through a [`VdeDoor`], each to a
//! port of its own. Nothing of the host's own network is touched, and everything is gone when the
//! process is, however it ends.
//!
//! What decides does no input or output, and gets the time told: [`switch`] (which ports a frame
//! goes to), [`offload`] (checksums and segments), [`stream`] (frames in a byte stream), [`vde`]
//! (how a client asks for a port), [`addresses`] (who is called what). Around it are the ports'
//! sockets and one loop that polls them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use machinist_network::Vlan;
//!
//! let directory = tempfile::tempdir()?;
//! let vlan = Vlan::new(1)?;
//! let path = directory.path().join("vlan1");
//! let port = vlan.attach_socket("web", &path)?;
//! // qemu-system-x86_64 -netdev stream,id=n1,server=off,addr.type=unix,addr.path=PATH
//! port.set_up(false);
//! assert_eq!(port.counters().received.frames, 0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod addresses;
pub mod bridge;
mod door;
mod engine;
mod error;
pub mod frame;
pub mod offload;
mod port;
mod still;
pub mod stream;
pub mod switch;
pub mod vde;
mod vlan;

pub use door::{DirectoryError, VdeDoor};
pub use error::{AttachError, VlanError};
pub use machinist_sys::namespace::NetNs;
pub use machinist_sys::netlink::{Mac, ParseMacError};
pub use port::{Counters, Drops, Port, Traffic};
pub use still::{InFlight, Still};
pub use vlan::{DEFAULT_MTU, Reserved, VethSpec, Vlan};
