//! Start scripts, as NixOS tests have them, over our own Debian images.

mod container;
mod cpio;
mod vm;

pub use container::ContainerScript;
pub use vm::{VmScript, VmSystem};
