//! What handles tell the loop.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use super::doors::NewDoor;
use super::poll::{DoorId, Waker};
use crate::port::{Device, Tally};
use crate::still::InFlight;
use crate::switch::PortId;

/// A port that is to be.
#[derive(Debug)]
pub(crate) struct NewPort {
    pub name: String,
    pub mtu: u32,
    pub tally: Arc<Tally>,
    pub device: Device,
}

#[derive(Debug)]
pub(crate) enum Command {
    Attach(NewPort, Sender<io::Result<PortId>>),
    Detach(PortId, Sender<()>),
    SetUp(PortId, bool, Sender<()>),
    Open(NewDoor, Sender<io::Result<DoorId>>),
    Close(DoorId, Sender<()>),
    SetDoorUp(DoorId, bool, Sender<()>),
    Hold(Sender<()>),
    Collect(Sender<Vec<InFlight>>),
    Thaw(Vec<InFlight>, Sender<()>),
}

/// The sending end. Dropping it ends the loop.
#[derive(Debug)]
pub(crate) struct Commands {
    // Fields are dropped in this order: first the loop's channel closes, then it is woken.
    sender: Sender<Command>,
    waker: WakeOnDrop,
}

#[derive(Debug)]
struct WakeOnDrop(Waker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Commands {
    pub fn new(sender: Sender<Command>, waker: Waker) -> Self {
        Self {
            sender,
            waker: WakeOnDrop(waker),
        }
    }

    pub fn attach(&self, port: NewPort) -> io::Result<PortId> {
        self.ask(|reply| Command::Attach(port, reply))
            .unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }

    pub fn detach(&self, port: PortId) {
        self.ask(|reply| Command::Detach(port, reply));
    }

    pub fn set_up(&self, port: PortId, up: bool) {
        self.ask(|reply| Command::SetUp(port, up, reply));
    }

    pub fn open(&self, door: NewDoor) -> io::Result<DoorId> {
        self.ask(|reply| Command::Open(door, reply))
            .unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }

    pub fn close(&self, door: DoorId) {
        self.ask(|reply| Command::Close(door, reply));
    }

    pub fn set_door_up(&self, door: DoorId, up: bool) {
        self.ask(|reply| Command::SetDoorUp(door, up, reply));
    }

    pub fn hold(&self) {
        self.ask(Command::Hold);
    }

    pub fn collect(&self) -> Vec<InFlight> {
        self.ask(Command::Collect).unwrap_or_default()
    }

    pub fn thaw(&self, frames: Vec<InFlight>) {
        self.ask(|reply| Command::Thaw(frames, reply));
    }

    /// Sends a command and waits until it is done. `None` where the loop has ended.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, done) = mpsc::channel();
        self.sender.send(command(reply)).ok()?;
        self.waker.0.wake();
        done.recv().ok()
    }
}
