//! Network interfaces, made and configured over the kernel's route netlink.
//!
//! Everything is synchronous: a request goes out, its acknowledgement comes back. A [`Netlink`]
//! belongs to the network namespace of the thread that opened it and keeps belonging to it, from
//! whatever thread it is used later; see [`crate::namespace::in_netns`].
//!
//! The agent links this module too, so replies are read by hand from their few attributes that
//! matter: the decoders of `netlink-packet-route` know every attribute there is, and weigh that much.

mod address;
mod bridge;
mod error;
mod link;
mod mac;
mod socket;

pub use error::NetlinkError;
pub use link::{Link, VethEnd};
pub use mac::{Mac, ParseMacError};
pub use socket::Netlink;
