//! The tests, by what they are about.

pub mod life;
pub mod qemu;
pub mod talk;
pub mod transfer;
pub mod vms;
pub mod walls;
