//! Packing a tree for the host.

use machinist_tree::Packer;
use machinist_wire::message::Failure;
use machinist_wire::{Blob, Endpoint, Lane, StreamId};

use super::{Input, Port, Step, Task, Token, Wants};
use crate::server::Context;

struct Get {
    packer: Packer,
    /// Packed and not yet sent.
    pending: Vec<u8>,
    sent: usize,
}

pub(super) fn start(path: &Blob) -> Result<Box<dyn Task>, Failure> {
    let packer = Packer::new(path.as_path()).map_err(|error| told(&error))?;
    Ok(Box::new(Get {
        packer,
        pending: Vec::new(),
        sent: 0,
    }))
}

/// The whole story in one line.
pub(super) fn told(error: &machinist_tree::TreeError) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    Failure {
        text,
        errno: error.errno().unwrap_or(0),
    }
}

impl Task for Get {
    fn wants<'fd>(&'fd self, endpoint: &Endpoint, stream: StreamId, wants: &mut Wants<'fd>) {
        if endpoint.capacity(stream, Lane::Main, 1) > 0 {
            wants.at_once();
        }
    }

    fn ready(&mut self, port: &mut Port<'_>, _: Token, _: &mut Context) -> Step {
        if self.sent == self.pending.len() {
            self.pending.clear();
            self.sent = 0;
            match self.packer.pack(&mut self.pending) {
                Ok(true) => {}
                Ok(false) => {
                    port.end(Lane::Main);
                    return Step::Finished;
                }
                Err(error) => {
                    port.fail(told(&error));
                    return Step::Finished;
                }
            }
        }
        self.sent += port.send(Lane::Main, &self.pending[self.sent..]);
        Step::Continue
    }

    fn input(&mut self, _: &mut Port<'_>, _: Input, _: &mut Context) -> Step {
        Step::Continue
    }
}
