//! What needs unsafe or the kernel's own interfaces: processes, namespaces, netlink, packet sockets.
//! Also the error of the file system that names its path, since all but leaves have it.
//!
//! A Mac runs no machines yet: it has what `doctor`, and Nix's way to a builder, need.

#[cfg(target_os = "linux")]
mod call;
#[cfg(target_os = "linux")]
pub mod descriptors;
#[cfg(target_os = "linux")]
pub mod device;
#[cfg(target_os = "linux")]
pub mod ethtool;
#[cfg(target_os = "linux")]
pub mod isolation;
pub mod lock;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod mounts;
#[cfg(target_os = "linux")]
pub mod namespace;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod outgoing;
#[cfg(target_os = "linux")]
pub mod owner;
#[cfg(target_os = "linux")]
pub mod packet;
pub mod path_error;
#[cfg(target_os = "linux")]
pub mod power;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "macos")]
#[path = "process_macos.rs"]
pub mod process;
#[cfg(all(test, target_os = "linux"))]
mod process_macos;
#[cfg(target_os = "linux")]
pub mod random;
#[cfg(target_os = "linux")]
pub mod schedule;
#[cfg(target_os = "linux")]
pub mod tsc;
#[cfg(target_os = "linux")]
pub mod user_namespace;
#[cfg(target_os = "linux")]
pub mod vfork;
