//! The machine's task and its spare: a QEMU that waits to take the place of the present one.

use std::sync::Arc;

use super::Task;
use crate::backend::{Earlier, Mode};
use crate::qemu::frozen::Frozen;
use crate::qemu::spare::{Counted, Spare};

impl Task {
    /// Begins to make a spare of this moment, unless there is one. One of another moment is ended.
    pub(super) async fn reserve(&mut self, of: Arc<Frozen>, counted: Counted) {
        let mode = self.mode(self.life.is_plain());
        if self
            .spare
            .as_ref()
            .is_some_and(|spare| spare.fits(&of, mode))
        {
            return;
        }
        self.end_spare().await;
        self.spare = self.backend.spare(mode, of, counted);
    }

    /// Ends the spare of this moment.
    pub(super) async fn forget(&mut self, of: &Arc<Frozen>) {
        if self.spare.as_ref().is_some_and(|spare| spare.is_of(of)) {
            self.end_spare().await;
        }
    }

    /// Ends the spare, if there is one.
    pub(super) async fn end_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            spare.end().await;
        }
    }

    /// The spare of what the machine goes back to.
    pub(super) fn spare_of(&mut self, earlier: Option<&Earlier>, mode: Mode) -> Option<Spare> {
        let Some(Earlier::Vm(frozen)) = earlier else {
            return None;
        };
        self.spare.take_if(|spare| spare.fits(frozen, mode))
    }
}
