//! Where a machine hangs on the switch.

mod arrived;
mod counters;
mod device;
mod handle;
mod socket;
mod vde;
mod veth;

pub(crate) use counters::{Count, Tally};
pub use counters::{Counters, Drops, Traffic};
pub(crate) use device::{Context, Device};
pub use handle::Port;
pub(crate) use socket::SocketDevice;
pub(crate) use vde::VdeDevice;
pub(crate) use veth::VethDevice;
