//! The loop of a VLAN: one thread that polls all ports, and asks the switch where frames go.
//!
//! The thread owns everything; handles send it commands. It never waits for a machine, only for
//! something to happen, and what it does for one port before it looks at the next is bounded.

mod command;
mod doors;
mod fabric;
mod poll;
mod still;

use std::io;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::{self, JoinHandle};

use machinist_sys::packet::Batch;

use command::Command;
pub(crate) use command::{Commands, NewPort};
pub(crate) use doors::NewDoor;
use fabric::Fabric;
pub(crate) use poll::{DoorId, Interest, Part, Poll, Ready};

/// Starts the loop of the VLAN `id`. It ends when the last [`Commands`] is dropped.
pub(crate) fn start(id: u32) -> io::Result<(Commands, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let poll = Poll::new()?;
    let commands = Commands::new(sender, poll.waker());
    let thread = thread::Builder::new()
        .name(format!("vlan{id}"))
        .spawn(move || run(Fabric::new(poll), &receiver))?;
    Ok((commands, thread))
}

fn run(mut fabric: Fabric, commands: &Receiver<Command>) {
    let mut batch = Batch::new();
    let mut events = Vec::new();
    loop {
        if fabric.still {
            match commands.recv() {
                Ok(command) => fabric.obey(command),
                Err(mpsc::RecvError) => return,
            }
            continue;
        }
        if let Err(error) = fabric.poll().wait(&mut events) {
            tracing::error!(%error, "the switch has stopped: it cannot poll its ports");
            return;
        }
        for event in &events {
            fabric.ready(event, &mut batch);
        }
        loop {
            match commands.try_recv() {
                Ok(command) => fabric.obey(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}
