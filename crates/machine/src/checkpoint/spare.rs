//! Machines that are ready to go back before they are asked to.

use std::any::Any;
use std::sync::Arc;

use super::{Checkpoint, Moment};
use crate::error::MachineError;
use crate::machine::Machine;
use crate::task::Ask;

impl Machine {
    /// Begins to make a spare of it: a QEMU that goes on from the checkpoint, and waits until the
    /// machine goes back there. Then it takes its place, which is faster than a restore. Returns before
    /// it is made; one that cannot be made is not missed. A machine has one at most, the last that
    /// was asked for; only VMs that ran have any. `counted` is dropped when the spare is gone, or has
    /// become the machine.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn reserve(
        &self,
        checkpoint: &Checkpoint,
        counted: impl Any + Send + Sync,
    ) -> Result<(), MachineError> {
        let Moment::Running(frozen) = &checkpoint.0 else {
            return Ok(());
        };
        let (frozen, counted) = (Arc::clone(frozen), Arc::new(counted));
        self.ask(Ask::Reserve(frozen, counted)).await
    }

    /// Ends the spare of this checkpoint, if there is one, and waits until it is gone.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn forget(&self, checkpoint: &Checkpoint) -> Result<(), MachineError> {
        let Moment::Running(frozen) = &checkpoint.0 else {
            return Ok(());
        };
        self.ask(Ask::Forget(Arc::clone(frozen))).await
    }

    /// Ends its spare, if there is one, and waits until it is gone.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn forget_all(&self) -> Result<(), MachineError> {
        self.ask(Ask::ForgetAll).await
    }
}
