//! Which ports a frame goes to: a learning Ethernet switch, without input or output.
//!
//! It learns at which port a MAC address was last heard, and forgets it after [`AGE`]. A frame to a
//! known address goes to that port, one to a group or to an unknown address to all the others. A
//! frame never goes back to where it came from. 802.1Q tags pass unchanged, and addresses are
//! learnt per tag: the same address may be heard at different ports under different tags, where a
//! machine joins tagged networks.
//!
//! ```
//! use std::time::Duration;
//! use machinist_network::switch::Switch;
//!
//! let mut switch = Switch::default();
//! let (a, b, c) = (switch.add_port(), switch.add_port(), switch.add_port());
//! let mut to = Vec::new();
//! let hello = b"\xff\xff\xff\xff\xff\xff\x52\x54\0\x12\x01\x01\x08\x06who has 192.168.1.2?";
//! switch.forward(a, hello, Duration::ZERO, &mut to).unwrap();
//! assert_eq!(to, [b, c]);
//! let answer = b"\x52\x54\0\x12\x01\x01\x52\x54\0\x12\x01\x02\x08\x06it is me";
//! switch.forward(b, answer, Duration::ZERO, &mut to).unwrap();
//! assert_eq!(to, [a]);
//! ```

mod table;

use std::time::Duration;

use machinist_sys::netlink::Mac;

use crate::frame::Head;
use table::Table;

/// How long an address is remembered after it was last heard.
pub const AGE: Duration = Duration::from_secs(300);

/// How many addresses are remembered at most. What is heard beyond that is not learnt, so frames to
/// it go to all ports, which is slow but right.
pub const MOST_ADDRESSES: usize = 4096;

/// Ethernet's own flow control, which ends at the first switch.
const PAUSE: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0x01]);

/// A port of a [`Switch`]. Numbers are used again after a port is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(usize);

impl PortId {
    /// Small numbers from 0, to index by.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// Why a frame goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no whole Ethernet header, or claims to come from a group.
    Malformed,
    /// It is Ethernet flow control, which is between two neighbours.
    Pause,
    /// The port where it came in is down, or not there.
    PortDown,
}

/// The switch of one VLAN.
#[derive(Debug, Default)]
pub struct Switch {
    /// Per port, whether it is up.
    ports: Vec<Option<bool>>,
    table: Table,
}

impl Switch {
    /// Adds a port, which is up.
    pub fn add_port(&mut self) -> PortId {
        if let Some(free) = self.ports.iter().position(Option::is_none) {
            self.ports[free] = Some(true);
            return PortId(free);
        }
        self.ports.push(Some(true));
        PortId(self.ports.len() - 1)
    }

    /// Removes a port and forgets what was heard there.
    pub fn remove_port(&mut self, port: PortId) {
        if let Some(state) = self.ports.get_mut(port.0) {
            *state = None;
        }
        self.table.forget(port);
    }

    /// Sets a port up or down. Nothing goes in or out at a port that is down, and what was heard
    /// there is forgotten.
    pub fn set_up(&mut self, port: PortId, up: bool) {
        if let Some(Some(state)) = self.ports.get_mut(port.0) {
            *state = up;
        }
        if !up {
            self.table.forget(port);
        }
    }

    /// Whether a port is there and up.
    #[must_use]
    pub fn is_up(&self, port: PortId) -> bool {
        self.ports.get(port.0) == Some(&Some(true))
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.table.len()
    }

    /// Takes a frame that came in at `from` at the time `now`, and replaces `to` by the ports it
    /// goes out at, in order. `now` counts from any fixed moment and does not go back.
    ///
    /// # Errors
    /// A [`Refusal`]; `to` is empty then.
    pub fn forward(
        &mut self,
        from: PortId,
        frame: &[u8],
        now: Duration,
        to: &mut Vec<PortId>,
    ) -> Result<(), Refusal> {
        to.clear();
        if !self.is_up(from) {
            return Err(Refusal::PortDown);
        }
        let head = Head::read(frame).ok_or(Refusal::Malformed)?;
        if head.source.is_group() {
            return Err(Refusal::Malformed);
        }
        if head.destination == PAUSE {
            return Err(Refusal::Pause);
        }
        self.table.learn((head.tag, head.source), from, now);
        let known = match head.destination.is_group() {
            true => None,
            false => self.table.find((head.tag, head.destination), now),
        };
        match known {
            // The other machine is at the same port: it has heard the frame already.
            Some(port) if port == from => {}
            Some(port) => to.push(port),
            None => {
                let ports = self.ports.iter().enumerate();
                let others = ports.filter(|(port, state)| *port != from.0 && **state == Some(true));
                to.extend(others.map(|(port, _)| PortId(port)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
