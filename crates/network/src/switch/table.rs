//! What was heard where.

use std::collections::HashMap;
use std::time::Duration;

use machinist_sys::netlink::Mac;

use super::{AGE, MOST_ADDRESSES, PortId};

/// A tag's number (0 for none) and an address under it.
pub(super) type Key = (u16, Mac);

/// A full table is searched for what is too old at most this often.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Table {
    /// The port, and when the address was last heard there.
    heard: HashMap<Key, (PortId, Duration)>,
    swept: Option<Duration>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.heard.len()
    }

    pub fn learn(&mut self, key: Key, port: PortId, now: Duration) {
        if let Some(known) = self.heard.get_mut(&key) {
            *known = (port, now);
            return;
        }
        if self.heard.len() >= MOST_ADDRESSES {
            self.sweep(now);
        }
        if self.heard.len() < MOST_ADDRESSES {
            self.heard.insert(key, (port, now));
        }
    }

    pub fn find(&self, key: Key, now: Duration) -> Option<PortId> {
        let (port, heard) = self.heard.get(&key)?;
        (!is_old(*heard, now)).then_some(*port)
    }

    pub fn forget(&mut self, port: PortId) {
        self.heard.retain(|_, (heard_at, _)| *heard_at != port);
        self.swept = None;
    }

    /// Someone who makes up addresses must not make every frame cost a search of the whole table.
    fn sweep(&mut self, now: Duration) {
        if self
            .swept
            .is_some_and(|last| now.saturating_sub(last) < SWEEP)
        {
            return;
        }
        self.swept = Some(now);
        self.heard.retain(|_, (_, heard)| !is_old(*heard, now));
    }
}

fn is_old(heard: Duration, now: Duration) -> bool {
    now.saturating_sub(heard) > AGE
}
