//! What needs unsafe or the kernel's own interfaces: processes, namespaces, netlink, packet sockets.

pub mod process;
