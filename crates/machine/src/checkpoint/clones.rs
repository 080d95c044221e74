//! Machines that are made of one that runs.

use std::path::Path;
use std::time::SystemTime;

use machinist_guest::Renewal;

use super::Checkpoint;
use crate::error::{MachineError, chain};
use crate::machine::Machine;
use crate::qemu::frozen::Was;

impl Machine {
    /// Saves the machine in the directory `place`, which must not be there yet, for others to be
    /// made of it: a machine whose specification differs in its name, its id, its addresses and what
    /// it knows of others goes on from there as itself ([`Machine::restore`]). This one goes on.
    ///
    /// # Errors
    /// It does not run, there is an obstacle ([`Machine::checkpoint_obstacle`]), or it cannot be
    /// saved.
    pub async fn save_for_others(&self, place: &Path) -> Result<Checkpoint, MachineError> {
        let agent = self.agent()?;
        let Some(spec) = self.spec() else {
            return Err(self.unable("machines of start scripts cannot be cloned"));
        };
        if let Some(obstacle) = self.checkpoint_obstacle() {
            return Err(self.unable(obstacle));
        }
        let settled = agent.settle("").await;
        let settled = settled.map_err(|error| self.unable(chain(&error)))?;
        let taken = self.take_alone(place).await;
        // What was made quiet goes on, also where it could not be saved.
        let resumed = agent.renew(&Renewal::resume(&settled)).await;
        let taking = taken?;
        resumed.map_err(|error| self.unable(chain(&error)))?;
        Ok(taking.finish_for_others(Was {
            spec: spec.clone(),
            settled,
            saved: SystemTime::now(),
        }))
    }

    async fn take_alone(&self, place: &Path) -> Result<super::Taking, MachineError> {
        let mut taking = self.begin_checkpoint(place).await?;
        taking.stand_still().await?;
        taking.save().await?;
        taking.go_on().await?;
        Ok(taking)
    }
}
