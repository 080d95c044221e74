//! Taking a checkpoint.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use futures_util::future::{join_all, try_join_all};
use machinist_events::{Level, What};
use machinist_machine::checkpoint::Taking;

use super::{Checkpoints, Taken, Wire, status};
use crate::control::{Control, Standstill};
use crate::hub::Hub;
use crate::machines::fault;
use crate::path_error::{At, PathError};
use crate::protocol::{CheckpointStatus, Fault};

/// Longer names are nobody's wish.
const LONGEST_NAME: usize = 200;

/// The machines of a checkpoint that is being taken; those that were never made have nothing.
type Takings = Vec<(String, Option<Taking>)>;

impl Checkpoints {
    /// Takes a checkpoint of the whole lab. One of the same name is replaced.
    pub(crate) async fn take(
        &self,
        hub: &Hub,
        name: Option<String>,
    ) -> Result<CheckpointStatus, Fault> {
        let _busy = self.busy.lock().await;
        let number = self.next();
        let name = name.unwrap_or_else(|| format!("checkpoint-{number}"));
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(Fault::usage(format!(
                "{name:?} is no name for a checkpoint"
            )));
        }
        let machines = hub.all();
        refuse(&machines)?;
        self.tell(hub, &machines);
        let directory = self.directory.join(number.to_string());
        make(&self.directory).map_err(Fault::machinery)?;
        make(&directory).map_err(Fault::machinery)?;
        let taken = self.take_into(hub, &machines, &directory).await;
        let taken = match taken {
            Ok(taken) => Arc::new(taken),
            Err(fault) => {
                drop(std::fs::remove_dir_all(&directory));
                return Err(fault);
            }
        };
        let status = status(&name, &taken);
        let still = (status.still * 1000.0).round();
        let text = format!("checkpoint {name:?} taken: the machines stood still for {still} ms");
        hub.log.emit(What::Log {
            text,
            level: Level::Info,
        });
        let before = self.taken().insert(name, taken);
        if let Some(before) = before {
            before.forget(hub).await;
        }
        Ok(status)
    }

    /// Tells once what of the machines is in no checkpoint.
    fn tell(&self, hub: &Hub, machines: &[(String, Arc<dyn Control>)]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, machine) in machines {
            let Some(what) = machine.outside_checkpoints() else {
                continue;
            };
            if told.insert(name.clone()) {
                hub.log.emit(What::Log {
                    text: format!("checkpoints do not have all of {name}: {what}"),
                    level: Level::Warning,
                });
            }
        }
    }

    async fn take_into(
        &self,
        hub: &Hub,
        machines: &[(String, Arc<dyn Control>)],
        directory: &Path,
    ) -> Result<Taken, Fault> {
        let begin = |(name, machine): &(String, Arc<dyn Control>)| {
            let (name, machine) = (name.clone(), Arc::clone(machine));
            let place = directory.join(&name);
            async move { Ok((name, machine.begin_checkpoint(place).await?)) }
        };
        // To the end, all of them: what fails removes the directory, and nobody may still write there.
        let begun = join_all(machines.iter().map(begin)).await;
        let mut takings = begun.into_iter().collect::<Result<Takings, Fault>>()?;
        let held = hold(hub).await?;
        let began = Instant::now();
        let created = SystemTime::now();
        let saved = save(&mut takings, held.as_deref()).await;
        // Whatever went wrong, they go on.
        let running = takings.iter_mut().filter_map(|(_, taking)| taking.as_mut());
        let gone_on = join_all(running.map(Taking::go_on)).await;
        let still = began.elapsed();
        release(held).await?;
        let network = saved?;
        for result in gone_on {
            result.map_err(|error| fault(&error))?;
        }
        let finish = |(name, taking): (String, Option<Taking>)| (name, taking.map(Taking::finish));
        Ok(Taken {
            created,
            directory: directory.to_owned(),
            machines: takings.into_iter().map(finish).collect::<BTreeMap<_, _>>(),
            network,
            still,
            returns: AtomicU64::new(0),
        })
    }
}

/// Refuses before anything is touched, with all reasons.
fn refuse(machines: &[(String, Arc<dyn Control>)]) -> Result<(), Fault> {
    let obstacle = |(name, machine): &(String, Arc<dyn Control>)| {
        let obstacle = machine.checkpoint_obstacle()?;
        Some(format!("{name}: {obstacle}"))
    };
    let obstacles: Vec<String> = machines.iter().filter_map(obstacle).collect();
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(Fault::usage(format!(
        "no checkpoint of this lab can be taken: {}",
        obstacles.join("; ")
    )))
}

/// Makes a directory, unless it is there.
pub(super) fn make(directory: &Path) -> Result<(), PathError> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make the directory", directory),
    }
}

async fn save(takings: &mut Takings, held: Option<&dyn Standstill>) -> Result<Wire, Fault> {
    let mut running: Vec<&mut Taking> = takings
        .iter_mut()
        .filter_map(|(_, taking)| taking.as_mut())
        .collect();
    let stand = running.iter_mut().map(|taking| taking.stand_still());
    try_join_all(stand).await.map_err(|error| fault(&error))?;
    let network = held.map_or_else(Wire::default, Standstill::look);
    // To the end, all of them: what has begun to write must not go on behind our back.
    let saves = running.iter_mut().map(|taking| taking.save());
    for saved in join_all(saves).await {
        saved.map_err(|error| fault(&error))?;
    }
    Ok(network)
}

/// Lets the network stand still, where there is one.
pub(super) async fn hold(hub: &Hub) -> Result<Option<Box<dyn Standstill>>, Fault> {
    let Some(links) = hub.links.clone() else {
        return Ok(None);
    };
    let held = tokio::task::spawn_blocking(move || links.hold());
    held.await.map(Some).map_err(Fault::machinery)
}

async fn release(held: Option<Box<dyn Standstill>>) -> Result<(), Fault> {
    let released = tokio::task::spawn_blocking(move || drop(held));
    released.await.map_err(Fault::machinery)
}
