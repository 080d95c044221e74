//! Spares: machines that are ready to go back to a checkpoint before that is asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use machinist_machine::checkpoint::Checkpoint;

use super::Taken;
use crate::control::Control;
use crate::hub::Hub;

/// Who goes back so often goes back once more. Who goes back once, as a `with lab.rollback():` does,
/// has no use for a spare.
const OFTEN: u64 = 2;

impl Taken {
    /// The lab went back to it. Where that happens again and again, the machines get spares, which
    /// are made while they are in use.
    pub(super) async fn returned(&self, hub: &Hub) {
        if self.returns.fetch_add(1, Ordering::Relaxed) + 1 < OFTEN {
            return;
        }
        let machines = self.machines(hub);
        join_all(machines.iter().map(|(machine, of)| machine.reserve(of))).await;
    }

    /// Nobody goes back to it any more.
    pub(super) async fn forget(&self, hub: &Hub) {
        if self.returns.load(Ordering::Relaxed) >= OFTEN {
            let machines = self.machines(hub);
            join_all(machines.iter().map(|(machine, of)| machine.forget(of))).await;
        }
    }

    /// The machines that had been made then, and what they were.
    fn machines(&self, hub: &Hub) -> Vec<(Arc<dyn Control>, Checkpoint)> {
        let all = hub.all().into_iter();
        let then = all.filter_map(|(name, machine)| {
            let of = self.machines.get(&name).cloned().flatten()?;
            Some((machine, of))
        });
        then.collect()
    }
}
