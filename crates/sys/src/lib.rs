//! What needs unsafe or the kernel's own interfaces: processes, namespaces, netlink, packet sockets.
//! Also the error of the file system that names its path, since all but leaves have it.

mod call;
pub mod descriptors;
pub mod device;
pub mod ethtool;
pub mod isolation;
pub mod mounts;
pub mod namespace;
pub mod netlink;
pub mod outgoing;
pub mod packet;
pub mod path_error;
pub mod power;
pub mod process;
pub mod random;
pub mod schedule;
pub mod tsc;
pub mod user_namespace;
pub mod vfork;
