//! What the machines of one session have of the host's memory, as they are seen to start.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cost::Costs;
use super::memory::Share;

/// What the machines of one session have of the host's memory.
#[derive(Debug)]
pub(crate) struct Usage {
    costs: Mutex<Costs>,
    share: Share,
}

impl Usage {
    /// A share that was granted for these costs.
    pub(crate) fn new(costs: Costs, share: Share) -> Self {
        Self {
            costs: Mutex::new(costs),
            share,
        }
    }

    /// A machine was restored: from now on it costs what is its own.
    pub(crate) fn restored(&self, machine: &str) {
        self.change(|costs| costs.restored(machine));
    }

    /// A machine boots that was to be restored: it costs all of its memory.
    pub(crate) fn boots(&self, machine: &str) {
        self.change(|costs| costs.boots(machine));
    }

    /// Sets aside what a spare of a machine costs: so many bytes, to be given back by
    /// [`Usage::end_spare`]; none, where there is not enough at once.
    pub(crate) fn begin_spare(&self, machine: &str) -> Option<u64> {
        let mut costs = self.costs();
        let bytes = costs.of_spare(machine)?;
        if !self.share.more(bytes) {
            return None;
        }
        costs.begin_spare(bytes);
        Some(bytes)
    }

    /// A spare that costs so many bytes is gone, or has become its machine.
    pub(crate) fn end_spare(&self, bytes: u64) {
        self.change(|costs| costs.end_spare(bytes));
    }

    fn costs(&self) -> MutexGuard<'_, Costs> {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Costs)) {
        let mut costs = self.costs();
        change(&mut costs);
        self.share.set(costs.sum());
    }
}
