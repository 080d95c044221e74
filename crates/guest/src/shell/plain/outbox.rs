//! What is on its way to the host, as fast as that takes it.

use std::collections::BTreeMap;

use machinist_wire::message::{Reply, encode};
use machinist_wire::{Endpoint, Lane, StreamId};

struct Item {
    lanes: [(Vec<u8>, usize); 2],
    last: Option<Reply>,
}

#[derive(Default)]
pub(super) struct Outbox {
    items: BTreeMap<StreamId, Item>,
}

impl Outbox {
    /// Sends both lanes to their ends, then the last word, and closes the stream.
    pub(super) fn put(
        &mut self,
        stream: StreamId,
        main: Vec<u8>,
        error: Vec<u8>,
        last: Option<Reply>,
    ) {
        let lanes = [(main, 0), (error, 0)];
        self.items.insert(stream, Item { lanes, last });
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.items.remove(&stream);
    }

    /// Sends what is allowed now.
    pub(super) fn flush(&mut self, endpoint: &mut Endpoint) {
        self.items.retain(|stream, item| {
            let mut whole = true;
            for (lane, (bytes, sent)) in [Lane::Main, Lane::Error].into_iter().zip(&mut item.lanes)
            {
                while *sent < bytes.len() {
                    match endpoint.send(*stream, lane, &bytes[*sent..]) {
                        0 => break,
                        count => *sent += count,
                    }
                }
                if *sent < bytes.len() {
                    whole = false;
                } else {
                    endpoint.end(*stream, lane);
                }
            }
            if whole {
                if let Some(last) = &item.last {
                    endpoint.message(*stream, &encode(last));
                }
                endpoint.close(*stream);
            }
            !whole
        });
    }
}
