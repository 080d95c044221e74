//! Going back to a checkpoint.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, try_join_all};
use machinist_events::{Level, What};
use machinist_machine::checkpoint::Checkpoint;

use super::Checkpoints;
use super::take::hold;
use crate::hub::Hub;
use crate::protocol::{Fault, WentBack};

impl Checkpoints {
    /// Goes back to a checkpoint, as often as one likes, whatever the machines do just now. Machines
    /// that have come since are switched off.
    pub(crate) async fn back_to(&self, hub: &Hub, name: &str) -> Result<WentBack, Fault> {
        let _busy = self.busy.lock().await;
        let taken = self.get(name)?;
        let began = Instant::now();
        let held = hold(hub).await?;
        let machines = hub.all();
        let back = machines.iter().map(|(machine, control)| {
            let (control, taken) = (Arc::clone(control), Arc::clone(&taken));
            let checkpoint = taken.machines.get(machine).cloned().flatten();
            async move {
                match checkpoint {
                    Some(checkpoint) => control.restore(checkpoint, name).await,
                    None => control.crash().await,
                }
            }
        });
        let back = join_all(back).await;
        let wire = taken.network.clone();
        let released = tokio::task::spawn_blocking(move || {
            if let Some(held) = held {
                held.put_back(wire);
            }
        });
        released.await.map_err(Fault::machinery)?;
        back.into_iter().collect::<Result<Vec<()>, Fault>>()?;
        // Not before the network goes on: they may need it.
        let afresh = machines.iter().filter(|(machine, _)| {
            let checkpoint = taken.machines.get(machine).and_then(Option::as_ref);
            checkpoint.is_some_and(Checkpoint::starts_afresh)
        });
        try_join_all(afresh.map(|(_, control)| control.ready())).await?;
        taken.returned(hub).await;
        if !self.get(name).is_ok_and(|now| Arc::ptr_eq(&now, &taken)) {
            // It was dropped meanwhile.
            taken.forget(hub).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        let millis = (seconds * 1000.0).round();
        hub.log.emit(What::Log {
            text: format!("went back to checkpoint {name:?} in {millis} ms"),
            level: Level::Info,
        });
        Ok(WentBack {
            name: name.to_owned(),
            seconds,
        })
    }
}
