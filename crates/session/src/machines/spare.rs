//! Spares of machines, and the memory that they take.

use std::sync::Arc;

use machinist_machine::checkpoint::Checkpoint;

use super::{Ground, SessionMachine};

/// What a spare has of the session's memory; given back when it is dropped.
struct Counted {
    ground: Arc<Ground>,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.ground.usage.end_spare(self.bytes);
    }
}

impl SessionMachine {
    pub(super) async fn make_spare(&self, checkpoint: &Checkpoint) {
        let Some(machine) = self.made() else {
            return;
        };
        if !checkpoint.may_have_a_spare() {
            return;
        }
        let Some(bytes) = self.ground.usage.begin_spare(self.name()) else {
            return;
        };
        let counted = Counted {
            ground: Arc::clone(&self.ground),
            bytes,
        };
        // A machine that is gone needs none.
        drop(machine.reserve(checkpoint, counted).await);
    }

    pub(super) async fn end_spare(&self, checkpoint: &Checkpoint) {
        if let Some(machine) = self.made() {
            drop(machine.forget(checkpoint).await);
        }
    }
}
