//! What the machines of one session have of the host's memory, as they are seen to start.

use std::sync::{Mutex, PoisonError};

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

    fn change(&self, change: impl FnOnce(&mut Costs)) {
        let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut costs);
        self.share.set(costs.sum());
    }
}
