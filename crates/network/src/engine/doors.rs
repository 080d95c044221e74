//! Doors: where clients come by themselves, each to have a port of its own.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tracing::warn;

use super::command::NewPort;
use super::fabric::{Attached, Fabric};
use super::poll::{DoorId, Interest, Place};
use crate::door::Directory;
use crate::port::{Device, Tally, VdeDevice};
use crate::switch::PortId;

/// At most so many clients are let in before the ports have their turn.
const ADMISSIONS_AT_ONCE: usize = 16;
/// At most so many clients of one door have connected and not asked for a port. Who asks does it at
/// once; beyond that, the oldest is sent away.
const MOST_ASKING: usize = 32;
/// At most so many clients of one door have a port. Each takes two descriptors.
const MOST_CLIENTS: usize = 256;

/// A door that is to be.
#[derive(Debug)]
pub(crate) struct NewDoor {
    pub directory: Directory,
    pub mtu: u32,
    pub tally: Arc<Tally>,
}

#[derive(Debug)]
pub(super) struct Door {
    directory: Directory,
    mtu: u32,
    /// What passes the ports of all its clients.
    tally: Arc<Tally>,
    /// Whether its clients' ports are up.
    up: bool,
    /// How many clients have come so far.
    served: u64,
}

impl Fabric {
    pub(super) fn open(&mut self, new: NewDoor) -> io::Result<DoorId> {
        let free = self.doors.iter().position(Option::is_none);
        let id = DoorId(free.unwrap_or(self.doors.len()));
        let listener = new.directory.as_fd();
        self.poll
            .add_at(listener, Place::Door(id), Interest::READ)?;
        let room = self.doors.len().max(id.0 + 1);
        self.doors.resize_with(room, || None);
        self.doors[id.0] = Some(Door {
            directory: new.directory,
            mtu: new.mtu,
            tally: new.tally,
            up: true,
            served: 0,
        });
        Ok(id)
    }

    pub(super) fn close(&mut self, id: DoorId) {
        for port in self.clients(id) {
            self.detach(port);
        }
        // After the ports: it removes what is left in the directory.
        if let Some(door) = self.doors.get_mut(id.0) {
            *door = None;
        }
    }

    pub(super) fn set_door_up(&mut self, id: DoorId, up: bool) {
        if let Some(Some(door)) = self.doors.get_mut(id.0) {
            door.up = up;
        }
        for port in self.clients(id) {
            self.switch.set_up(port, up);
        }
    }

    /// Lets in who waits before a door.
    pub(super) fn knocked(&mut self, id: DoorId) {
        for _ in 0..ADMISSIONS_AT_ONCE {
            let Some(Some(door)) = self.doors.get_mut(id.0) else {
                return;
            };
            match door.directory.accept() {
                Ok(None) => return,
                Ok(Some(client)) => self.admit(id, client),
                Err(error) => {
                    let directory = door.directory.path().display();
                    warn!(%directory, %error, "sent a VDE client away");
                    // Who cannot be sent away is heard again when somebody else has gone.
                    if door.directory.is_crowded() {
                        let (fd, place) = (door.directory.as_fd(), Place::Door(id));
                        // It can only fail for descriptors that are not polled, and this one is.
                        drop(self.poll.change_at(fd, place, Interest::NONE));
                        return;
                    }
                }
            }
        }
    }

    /// Listens again, after there has been no room.
    pub(super) fn listen(&mut self, id: DoorId) {
        if let Some(Some(door)) = self.doors.get_mut(id.0)
            && door.directory.make_room()
        {
            let (fd, place) = (door.directory.as_fd(), Place::Door(id));
            // As above.
            drop(self.poll.change_at(fd, place, Interest::READ));
        }
    }

    fn admit(&mut self, id: DoorId, client: UnixStream) {
        let clients = self.clients(id);
        let asking = clients.iter().filter_map(|port| self.asking_since(*port));
        let asking: Vec<(u64, PortId)> = asking.collect();
        if asking.len() >= MOST_ASKING
            && let Some((_, oldest)) = asking.iter().min()
        {
            self.detach(*oldest);
        }
        let Some(Some(door)) = self.doors.get_mut(id.0) else {
            return;
        };
        let directory = door.directory.path();
        if clients.len() - asking.len() >= MOST_CLIENTS {
            let directory = directory.display();
            warn!(%directory, "sent a VDE client away: {MOST_CLIENTS} have ports already");
            return;
        }
        door.served += 1;
        let up = door.up;
        let device = VdeDevice::new(client, Arc::clone(directory), door.served);
        let port = device.map(|device| NewPort {
            name: format!("{}#{}", directory.display(), door.served),
            mtu: door.mtu,
            tally: Arc::clone(&door.tally),
            device: Device::Vde(device),
        });
        match port.and_then(|port| self.attach(port, Some(id))) {
            Ok(port) => self.switch.set_up(port, up),
            Err(error) => warn!(%error, "cannot poll a VDE client's connection"),
        }
    }

    /// The ports of those who came through a door.
    fn clients(&self, id: DoorId) -> Vec<PortId> {
        let theirs = |port: &&Attached| port.door == Some(id);
        let ports = self.ports.iter().flatten().filter(theirs);
        ports.map(|port| port.id).collect()
    }

    /// When a client came that has not asked for a port yet, in the order of all.
    fn asking_since(&self, id: PortId) -> Option<(u64, PortId)> {
        match &self.ports.get(id.index())?.as_ref()?.device {
            Device::Vde(vde) if vde.is_asking() => Some((vde.serial(), id)),
            _ => None,
        }
    }
}
