//! The switch with what hangs on it.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use machinist_sys::packet::{Batch, Frame};

use super::command::{Command, NewPort};
use super::doors::Door;
use super::poll::{DoorId, Event, Part, Place, Poll, Ready};
use crate::port::{Context, Count, Device, Tally};
use crate::switch::{PortId, Refusal, Switch};

#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) poll: Poll,
    pub(super) switch: Switch,
    /// At the index of its number.
    pub(super) ports: Vec<Option<Attached>>,
    /// At the index of its number.
    pub(super) doors: Vec<Option<Door>>,
    started: Instant,
    /// Nothing moves: see [`Fabric::hold`].
    pub(super) still: bool,
    /// Memory to work in.
    work: Work,
}

#[derive(Debug, Default)]
struct Work {
    to: Vec<PortId>,
    /// Per port, which frames of those in hand go out there.
    outgoing: Vec<Vec<usize>>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Attached {
    pub id: PortId,
    pub(super) name: String,
    mtu: u32,
    tally: Arc<Tally>,
    pub device: Device,
    /// Through which door it came, if it did.
    pub door: Option<DoorId>,
}

impl Attached {
    pub(super) fn parts<'a>(
        &'a mut self,
        poll: &'a Poll,
        still: bool,
    ) -> (Context<'a>, &'a mut Device) {
        let context = Context {
            poll,
            still,
            port: self.id,
            name: &self.name,
            mtu: self.mtu,
            tally: &self.tally,
        };
        (context, &mut self.device)
    }
}

impl Fabric {
    pub fn new(poll: Poll) -> Self {
        Self {
            poll,
            switch: Switch::default(),
            ports: Vec::new(),
            doors: Vec::new(),
            started: Instant::now(),
            still: false,
            work: Work::default(),
        }
    }

    pub const fn poll(&self) -> &Poll {
        &self.poll
    }

    pub fn obey(&mut self, command: Command) {
        // Who asked may have gone away meanwhile.
        match command {
            Command::Attach(port, reply) => drop(reply.send(self.attach(port, None))),
            Command::Detach(port, reply) => {
                self.detach(port);
                let _ = reply.send(());
            }
            Command::SetUp(port, up, reply) => {
                self.switch.set_up(port, up);
                let _ = reply.send(());
            }
            Command::Open(door, reply) => drop(reply.send(self.open(door))),
            Command::Close(door, reply) => {
                self.close(door);
                let _ = reply.send(());
            }
            Command::SetDoorUp(door, up, reply) => {
                self.set_door_up(door, up);
                let _ = reply.send(());
            }
            Command::Hold(reply) => {
                self.hold();
                let _ = reply.send(());
            }
            Command::Collect(reply) => {
                drop(reply.send(self.collect()));
            }
            Command::Thaw(frames, reply) => {
                self.thaw(&frames);
                let _ = reply.send(());
            }
        }
    }

    pub(super) fn attach(&mut self, new: NewPort, door: Option<DoorId>) -> io::Result<PortId> {
        let id = self.switch.add_port();
        let mut port = Attached {
            id,
            name: new.name,
            mtu: new.mtu,
            tally: new.tally,
            device: new.device,
            door,
        };
        let (context, device) = port.parts(&self.poll, self.still);
        if let Err(error) = device.register(context) {
            self.switch.remove_port(id);
            return Err(error);
        }
        let room = self.ports.len().max(id.index() + 1);
        self.ports.resize_with(room, || None);
        self.work.outgoing.resize_with(room, Vec::new);
        self.ports[id.index()] = Some(port);
        Ok(id)
    }

    pub(super) fn detach(&mut self, id: PortId) {
        self.switch.remove_port(id);
        let port = self.ports.get_mut(id.index()).and_then(Option::take);
        if let Some(door) = port.and_then(|port| port.door) {
            self.listen(door);
        }
    }

    /// Does what a port or a door is ready for.
    pub fn ready(&mut self, event: &Event, batch: &mut Batch) {
        match event.place {
            Place::Port(port, part) => self.port_ready(port, part, event.ready, batch),
            Place::Door(door) => self.knocked(door),
        }
    }

    fn port_ready(&mut self, index: usize, part: Part, ready: Ready, batch: &mut Batch) {
        self.distribute(index, |device, context, deliver| {
            device.ready(context, part, ready, batch, deliver);
        });
    }

    /// Lets `act` do something with a port, and sends the frames that it delivers to where they go.
    pub(super) fn distribute(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Device, Context<'_>, &mut dyn FnMut(&[Frame<'_>])),
    ) {
        // While its frames are distributed, the port is not among the others: nothing goes back.
        let Some(mut port) = self.ports.get_mut(index).and_then(Option::take) else {
            return;
        };
        let (mut switch, mut work) = (mem::take(&mut self.switch), mem::take(&mut self.work));
        let now = self.started.elapsed();
        let (context, device) = port.parts(&self.poll, self.still);
        let ports = &mut self.ports;
        act(device, context, &mut |frames| {
            for (index, frame) in frames.iter().enumerate() {
                context.tally.received(frame.bytes.len());
                match switch.forward(context.port, frame.bytes, now, &mut work.to) {
                    Ok(()) => {}
                    Err(Refusal::PortDown) => _ = context.tally.dropped(Count::PortDown, 1),
                    Err(Refusal::Malformed) => _ = context.tally.dropped(Count::Malformed, 1),
                    // Heard, and meant for nobody else.
                    Err(Refusal::Pause) => {}
                }
                for to in &work.to {
                    work.outgoing[to.index()].push(index);
                }
            }
            work.send(context, frames, ports);
        });
        (self.switch, self.work) = (switch, work);
        let (id, over) = (port.id, port.device.is_over());
        self.ports[index] = Some(port);
        if over {
            self.detach(id);
        }
    }
}

impl Work {
    /// Sends all frames in hand to where they go.
    fn send(&mut self, from: Context<'_>, frames: &[Frame<'_>], ports: &mut [Option<Attached>]) {
        for (outgoing, port) in self.outgoing.iter_mut().zip(ports) {
            if outgoing.is_empty() {
                continue;
            }
            let list: Vec<Frame<'_>> = outgoing.drain(..).map(|index| frames[index]).collect();
            if let Some(port) = port {
                let (context, device) = port.parts(from.poll, from.still);
                device.send(context, &list, &mut self.scratch);
            }
        }
    }
}
