//! What needs unsafe or the kernel's own interfaces: processes, namespaces, netlink, packet sockets.
//! Also the error of the file system that names its path, since all but leaves have it.
//!
//! A Mac runs no machines yet: it has what `doctor`, and Nix's way to a builder, need.

pub mod id_map;
#[cfg(target_os = "linux")]
mod linux;
pub mod lock;
// What can be tested of it on Linux is.
#[cfg(any(target_os = "macos", test))]
mod macos;
pub mod memory;
pub mod path_error;
pub mod stat;

#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(target_os = "macos")]
pub use macos::*;
