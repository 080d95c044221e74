//! What is behind a port, as the switch's loop sees it.

use std::io;

use machinist_sys::packet::{Batch, Frame};
use tracing::warn;

use super::{Count, SocketDevice, Tally, VdeDevice, VethDevice};
use crate::engine::{Part, Poll, Ready};
use crate::offload;
use crate::switch::PortId;

/// What a device needs to know of the port it is behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub poll: &'a Poll,
    pub port: PortId,
    pub name: &'a str,
    pub mtu: u32,
    pub tally: &'a Tally,
    /// The VLAN stands still: what goes to a virtual machine waits.
    pub still: bool,
}

/// A socket for a virtual machine, the outer end of a container's interface, or a client of the VDE
/// protocol. Nothing here waits:
/// what cannot be written now is kept, and dropped where too much is kept already.
#[derive(Debug)]
pub(crate) enum Device {
    Socket(SocketDevice),
    Veth(VethDevice),
    Vde(VdeDevice),
}

impl Device {
    /// Begins to be polled.
    pub fn register(&self, context: Context<'_>) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.register(context),
            Self::Veth(veth) => veth.register(context),
            Self::Vde(vde) => vde.register(context),
        }
    }

    /// Does what its descriptor is ready for. Frames that have come in are handed to `deliver`.
    pub fn ready(
        &mut self,
        context: Context<'_>,
        part: Part,
        ready: Ready,
        batch: &mut Batch,
        deliver: &mut dyn FnMut(&[Frame<'_>]),
    ) {
        match self {
            Self::Socket(socket) => socket.ready(context, part, ready, deliver),
            Self::Veth(veth) => veth.ready(context, ready, batch, deliver),
            Self::Vde(vde) => vde.ready(context, part, ready, batch, deliver),
        }
    }

    /// Sends frames to the machine.
    pub fn send(&mut self, context: Context<'_>, frames: &[Frame<'_>], scratch: &mut Vec<u8>) {
        match self {
            Self::Socket(socket) => socket.send(context, frames, scratch),
            Self::Veth(veth) => veth.send(context, frames),
            Self::Vde(vde) => vde.send(context, frames, scratch),
        }
    }

    /// Whether nothing will ever come from it again, so that its port is to be removed.
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Socket(_) | Self::Veth(_) => false,
            Self::Vde(vde) => vde.is_over(),
        }
    }
}

impl Context<'_> {
    /// Whether a frame is short enough for the port; counts it where it is not.
    pub fn fits(&self, frame: &Frame<'_>) -> bool {
        let length = offload::longest_packet(frame.bytes, frame.header);
        if length <= usize::try_from(self.mtu).unwrap_or(usize::MAX) {
            return true;
        }
        // Said once: a machine with too long an MTU sends many.
        if self.tally.dropped(Count::TooLong, 1) == 0 {
            warn!(
                port = self.name,
                "dropped a packet of {length} bytes, and all such to come: the port's MTU is {}",
                self.mtu
            );
        }
        false
    }
}
