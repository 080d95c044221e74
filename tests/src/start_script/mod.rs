//! Start scripts, as NixOS tests have them, over our own Debian images.

mod container;

pub use container::ContainerScript;
