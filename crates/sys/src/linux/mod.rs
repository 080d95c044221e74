//! What only Linux has.

mod call;
pub mod descriptors;
pub mod device;
pub mod ethtool;
pub mod isolation;
pub mod mounts;
pub mod namespace;
pub mod netlink;
pub mod outgoing;
pub mod owner;
pub mod packet;
pub mod power;
pub mod process;
pub mod random;
pub mod schedule;
pub mod tsc;
pub mod user_namespace;
pub mod vfork;
