//! Ethernet frames from and to a network interface, many at a time (`AF_PACKET`).
//!
//! With [`Headers::Offload`] every frame comes with the kernel's note of what a network card would
//! still have to do for it: fill in a checksum, cut it into segments. Handed on to another such
//! socket, the note lets a 64 KiB frame pass uncut.

mod batch;
mod header;
mod socket;

pub use batch::{Batch, Received};
pub use header::VnetHeader;
pub use socket::{FRAMES_AT_ONCE, Frame, Headers, PacketSocket};
