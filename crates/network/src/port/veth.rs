//! The outer end of a container's interface.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use machinist_sys::packet::{Batch, FRAMES_AT_ONCE, Frame, PacketSocket};

use super::{Context, Count, arrived};
use crate::engine::{Interest, Part, Ready};
use crate::offload::Note;

/// At most so many bytes wait for a container whose kernel takes no more at the moment.
const BOUND: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct VethDevice {
    socket: PacketSocket,
    waiting: VecDeque<(Note, Box<[u8]>)>,
    waiting_bytes: usize,
}

impl VethDevice {
    pub fn new(socket: PacketSocket) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    pub fn register(&self, context: Context<'_>) -> io::Result<()> {
        let fd = self.socket.as_fd();
        context
            .poll
            .add(fd, context.port, Part::Main, Interest::READ)
    }

    pub fn ready(
        &mut self,
        context: Context<'_>,
        ready: Ready,
        batch: &mut Batch,
        deliver: &mut dyn FnMut(&[Frame<'_>]),
    ) {
        if ready.write {
            self.flush(context);
        }
        if !ready.read {
            return;
        }
        match self.socket.receive(batch) {
            Ok(_) => arrived::hand_out(context, batch, deliver),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A frame with an offload that no note describes; or the interface has gone down, which
            // is told once. What follows is read when the loop comes round.
            Err(_) => {
                context.tally.dropped(Count::Malformed, 1);
            }
        }
    }

    pub fn send(&mut self, context: Context<'_>, frames: &[Frame<'_>]) {
        let fitting = frames.iter().copied().filter(|frame| context.fits(frame));
        let fitting: Vec<Frame<'_>> = fitting.collect();
        let mut rest = &fitting[..];
        // Those that wait go first.
        while !rest.is_empty() && self.waiting.is_empty() {
            match self.socket.send(rest) {
                Ok(count) => {
                    let (sent, after) = rest.split_at(count.min(rest.len()));
                    sent.iter()
                        .for_each(|frame| context.tally.sent(frame.bytes.len()));
                    rest = after;
                }
                Err(error) if is_full(&error) => break,
                Err(_) => {
                    context.tally.dropped(Count::Refused, 1);
                    rest = &rest[1..];
                }
            }
        }
        if !rest.is_empty() {
            self.keep(context, rest);
        }
    }

    fn keep(&mut self, context: Context<'_>, frames: &[Frame<'_>]) {
        let was_empty = self.waiting.is_empty();
        for frame in frames {
            if self.waiting_bytes + frame.bytes.len() > BOUND {
                context.tally.dropped(Count::NoRoom, 1);
                continue;
            }
            self.waiting_bytes += frame.bytes.len();
            self.waiting.push_back((*frame.header, frame.bytes.into()));
        }
        if was_empty {
            self.set_interest(context, Interest::READ_WRITE);
        }
    }

    fn flush(&mut self, context: Context<'_>) {
        while !self.waiting.is_empty() {
            let frames: Vec<Frame<'_>> = self
                .waiting
                .iter()
                .take(FRAMES_AT_ONCE)
                .map(|(header, bytes)| Frame { header, bytes })
                .collect();
            let done = match self.socket.send(&frames) {
                Ok(count) => count,
                Err(error) if is_full(&error) => return,
                Err(_) => {
                    context.tally.dropped(Count::Refused, 1);
                    self.take(1);
                    continue;
                }
            };
            for bytes in self.take(done) {
                context.tally.sent(bytes);
            }
        }
        self.set_interest(context, Interest::READ);
    }

    /// Lets go of the first `count` that wait. Returns their lengths.
    fn take(&mut self, count: usize) -> Vec<usize> {
        let count = count.min(self.waiting.len());
        let lengths: Vec<usize> = self
            .waiting
            .drain(..count)
            .map(|(_, bytes)| bytes.len())
            .collect();
        self.waiting_bytes -= lengths.iter().sum::<usize>();
        lengths
    }

    fn set_interest(&self, context: Context<'_>, interest: Interest) {
        let fd = self.socket.as_fd();
        // It can only fail for descriptors that are not polled, and this one is.
        drop(context.poll.change(fd, context.port, Part::Main, interest));
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
