//! The tests, by what they are about.

pub mod bridge;
pub mod life;
pub mod qemu;
pub mod talk;
pub mod transfer;
pub mod vde;
pub mod vde_programs;
pub mod vms;
pub mod walls;
