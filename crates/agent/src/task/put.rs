//! Unpacking a tree that the host sends.

use machinist_tree::{Options, Unpacker};
use machinist_wire::message::{Failure, Put, Reply};
use machinist_wire::{Endpoint, StreamId};

use super::get::told;
use super::{Input, Port, Step, Task, Token, Wants};
use crate::server::Context;

struct Unpack {
    unpacker: Unpacker,
}

pub(super) fn start(put: &Put) -> Result<Box<dyn Task>, Failure> {
    let options = Options {
        owners: put.owners,
        privileged_modes: true,
    };
    let unpacker = Unpacker::new(put.path.as_path(), put.name.as_os_str(), options)
        .map_err(|error| told(&error))?;
    Ok(Box::new(Unpack { unpacker }))
}

impl Task for Unpack {
    fn wants<'fd>(&'fd self, _: &Endpoint, _: StreamId, _: &mut Wants<'fd>) {}

    fn ready(&mut self, _: &mut Port<'_>, _: Token, _: &mut Context) -> Step {
        Step::Continue
    }

    fn input(&mut self, port: &mut Port<'_>, input: Input, _: &mut Context) -> Step {
        let result = match input {
            Input::Data(bytes) => {
                let result = self.unpacker.push(&bytes);
                port.consumed(bytes.len());
                result
            }
            Input::End => {
                let result = self.unpacker.finish();
                if result.is_ok() {
                    port.reply(&Reply::Done);
                    return Step::Finished;
                }
                result
            }
            Input::Credit | Input::Message(_) => Ok(()),
        };
        match result {
            Ok(()) => Step::Continue,
            Err(error) => {
                port.fail(told(&error));
                Step::Finished
            }
        }
    }
}
