//! Machines that are made of one that runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use futures_util::{StreamExt, TryStreamExt, stream};
use machinist_guest::{Agent, Command};
use machinist_machine::HostLine;
use machinist_machine::checkpoint::Checkpoint;
use machinist_network::addresses::MachineNumber;

use super::{Recipe, SessionMachine, fault};
use crate::control::Control;
use crate::plan::MachinePlan;
use crate::protocol::Fault;
use crate::quote::quote;

impl SessionMachine {
    /// Machines with these names and numbers that go on from where this one is now. All of them run.
    pub(super) async fn make_clones(
        &self,
        of: Vec<(String, MachineNumber)>,
        place: PathBuf,
    ) -> Result<Vec<Arc<dyn Control>>, Fault> {
        let Recipe::Lab { plan, env, ready } = &self.recipe else {
            return Err(Fault::usage("machines of start scripts cannot be cloned"));
        };
        // It has to be as ready as commands want it: its clones are as it is.
        drop(self.settled(&mut self.turns.need()).await?);
        let session = self.ground.session.clone();
        let mut plans: Vec<MachinePlan> = of
            .iter()
            .map(|(name, number)| plan.of_clone(&session, name, *number))
            .collect();
        let lines: Vec<HostLine> = plans.iter().flat_map(MachinePlan::own_lines).collect();
        for plan in &mut plans {
            plan.knows(&lines);
        }
        let saved = self.machine().await?.save_for_others(&place).await;
        let saved = saved.map_err(|error| fault(&error))?;
        let clone = |plan: MachinePlan| {
            let recipe = Recipe::Lab {
                plan: Box::new(plan),
                env: env.clone(),
                ready: ready.clone(),
            };
            Arc::new(Self::new(recipe, Arc::clone(&self.ground)))
        };
        let clones = plans.into_iter().map(clone);
        let begun = clones.map(|clone| begin(clone, saved.clone()));
        // More at once than there are processors are not sooner ready, and the first is later.
        let at_once = thread::available_parallelism().map_or(2, usize::from);
        stream::iter(begun).buffered(at_once).try_collect().await
    }
}

async fn begin(clone: Arc<SessionMachine>, saved: Checkpoint) -> Result<Arc<dyn Control>, Fault> {
    let machine = clone.machine().await?;
    let restored = machine.restore(&saved).await;
    restored.map_err(|error| fault(&error))?;
    Ok(clone)
}

/// Lets a machine that runs know others, by a few lines at the end of its /etc/hosts. One that
/// cannot write there goes on without.
pub(super) async fn introduce(agent: &Agent, lines: &[HostLine]) {
    let mut text = String::new();
    for line in lines {
        text += &format!("{} {}\n", line.address, line.names.join(" "));
    }
    let script = format!("printf %s {} >> /etc/hosts", quote(&text));
    drop(
        agent
            .output(&Command::argv(["/bin/sh", "-c", &script]))
            .await,
    );
}
