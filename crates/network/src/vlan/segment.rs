//! What carries a VLAN.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use machinist_sys::netlink::VethEnd;
use machinist_sys::packet::{Headers, PacketSocket};

use super::inner::CARRIER;
use super::outside::Outside;
use crate::engine::{self, Commands, DoorId, NewDoor, NewPort};
use crate::error::AttachError;
use crate::still::InFlight;
use crate::switch::PortId;

/// What a VLAN's handle and its ports share.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) id: u32,
    pub(super) mtu: u32,
    /// `None` only while this is dropped.
    engine: Option<(Commands, JoinHandle<()>)>,
    /// Where the outer ends of containers' interfaces are, once there are any.
    outside: Mutex<Option<Outside>>,
}

impl Segment {
    pub(super) fn new(id: u32, mtu: u32) -> io::Result<Self> {
        Ok(Self {
            id,
            mtu,
            engine: Some(engine::start(id)?),
            outside: Mutex::new(None),
        })
    }

    pub(super) fn attach(&self, port: NewPort) -> io::Result<PortId> {
        match &self.engine {
            Some((commands, _)) => commands.attach(port),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn set_up(&self, port: PortId, up: bool) {
        if let Some((commands, _)) = &self.engine {
            commands.set_up(port, up);
        }
    }

    pub(crate) fn detach(&self, port: PortId, interface: Option<u32>) {
        if let Some((commands, _)) = &self.engine {
            commands.detach(port);
        }
        if let Some(index) = interface {
            self.delete(index);
        }
    }

    pub(super) fn open(&self, door: NewDoor) -> io::Result<DoorId> {
        match &self.engine {
            Some((commands, _)) => commands.open(door),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn close(&self, door: DoorId) {
        if let Some((commands, _)) = &self.engine {
            commands.close(door);
        }
    }

    pub(crate) fn set_door_up(&self, door: DoorId, up: bool) {
        if let Some((commands, _)) = &self.engine {
            commands.set_door_up(door, up);
        }
    }

    pub(crate) fn hold(&self) {
        if let Some((commands, _)) = &self.engine {
            commands.hold();
        }
    }

    pub(crate) fn collect(&self) -> Vec<InFlight> {
        let engine = self.engine.as_ref();
        engine.map_or_else(Vec::new, |(commands, _)| commands.collect())
    }

    pub(crate) fn thaw(&self, frames: Vec<InFlight>) {
        if let Some((commands, _)) = &self.engine {
            commands.thaw(frames);
        }
    }

    /// Makes an interface for the port `name` and opens its outer end.
    pub(super) fn make_outer(
        &self,
        name: &str,
        inner: VethEnd<'_>,
    ) -> Result<(u32, PacketSocket), AttachError> {
        let no_namespace = |source| AttachError::Namespace {
            vlan: self.id,
            source,
        };
        let failed = |source| AttachError::Interface {
            port: name.to_owned(),
            source,
        };
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if outside.is_none() {
            *outside = Some(Outside::new().map_err(no_namespace)?.map_err(failed)?);
        }
        let Some(outside) = outside.as_mut() else {
            return Err(no_namespace(io::ErrorKind::NotFound.into()));
        };
        let index = outside.make(inner).map_err(failed)?;
        let open = || PacketSocket::open(index, Headers::Offload);
        match outside.netns.run(open).and_then(|opened| opened) {
            Ok(socket) => Ok((index, socket)),
            Err(source) => {
                outside.delete(index);
                Err(AttachError::Packets {
                    port: name.to_owned(),
                    source,
                })
            }
        }
    }

    /// Waits until the outer end carries frames, which takes the inner one to be up.
    pub(super) fn settle(&self, name: &str, index: u32) -> Result<(), AttachError> {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = outside.as_mut().map_or(Ok(true), |outside| {
            outside.netlink.wait_until_running(index, CARRIER)
        });
        // What does not carry by then loses a first frame, which its sender repeats.
        settled.map(drop).map_err(|source| AttachError::Interface {
            port: name.to_owned(),
            source,
        })
    }

    pub(super) fn delete(&self, index: u32) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outside) = outside.as_mut() {
            outside.delete(index);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some((commands, thread)) = self.engine.take() {
            drop(commands);
            // A panic in it has been reported where it happened.
            drop(thread.join());
        }
    }
}
