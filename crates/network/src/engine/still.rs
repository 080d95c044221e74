//! A VLAN that stands still, and goes on.

use std::thread;
use std::time::{Duration, Instant};

use super::fabric::Fabric;
use crate::port::Device;
use crate::still::InFlight;

/// How long virtual machines may take to read what is on its way to them. One that does not read
/// has no room: what is left is then lost to who goes back to this moment, as on a full network.
const TAKEN_WITHIN: Duration = Duration::from_millis(20);
/// How often that is looked at: the kernel tells of room in a socket, and not that it is empty.
const LOOK: Duration = Duration::from_micros(200);

impl Fabric {
    /// Moves nothing from now on. When this returns, what was given to virtual machines is theirs.
    pub(super) fn hold(&mut self) {
        self.still = true;
        let deadline = Instant::now() + TAKEN_WITHIN;
        while !self.is_taken() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
    }

    fn is_taken(&self) -> bool {
        self.ports.iter().flatten().all(|port| match &port.device {
            Device::Socket(socket) => socket.is_taken(),
            Device::Veth(_) | Device::Vde(_) => true,
        })
    }

    /// Reads what virtual machines have said before they, too, stood still, and tells all that is
    /// on its way to them. It goes on being on its way.
    pub(super) fn collect(&mut self) -> Vec<InFlight> {
        for index in 0..self.ports.len() {
            self.distribute(index, |device, context, deliver| {
                if let Device::Socket(socket) = device {
                    socket.receive_all(context, deliver);
                }
            });
        }
        let mut frames = Vec::new();
        for port in self.ports.iter().flatten() {
            if let Device::Socket(socket) = &port.device {
                frames.extend(socket.waiting().map(|frame| InFlight {
                    port: port.name.clone(),
                    frame: frame.to_vec(),
                }));
            }
        }
        frames
    }

    /// Goes on, with `frames` put on their way besides what is on it.
    pub(super) fn thaw(&mut self, frames: &[InFlight]) {
        self.still = false;
        for port in self.ports.iter_mut().flatten() {
            let name = port.name.clone();
            let (context, device) = port.parts(&self.poll, false);
            if let Device::Socket(socket) = device {
                let own = frames.iter().filter(|held| held.port == name);
                socket.go_on(context, own.map(|held| held.frame.as_slice()));
            }
        }
    }
}
