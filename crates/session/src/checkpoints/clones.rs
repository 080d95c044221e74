//! Clones of a machine that runs: made like a checkpoint of it, and gone back to by others.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use machinist_network::addresses::MachineNumber;

use super::Checkpoints;
use super::take::make;
use crate::hub::Hub;
use crate::protocol::{Cloned, Fault};

impl Checkpoints {
    /// Makes `count` machines of one that runs, with names, numbers and addresses of their own, and
    /// lets all others know them. Ends when all of them run.
    pub(crate) async fn clone(
        &self,
        hub: &Hub,
        machine: &str,
        count: usize,
    ) -> Result<Cloned, Fault> {
        let _busy = self.busy.lock().await;
        let original = hub.machine(machine)?;
        let first = hub.numbers.load(Ordering::Relaxed);
        let number = |position| MachineNumber::at(position).map_err(Fault::usage);
        let numbers = (first..first.saturating_add(count)).map(number);
        let numbers: Vec<MachineNumber> = numbers.collect::<Result<_, _>>()?;
        let known = hub.all();
        let free = (1..).map(|number: usize| format!("{machine}-c{number}"));
        let free = free.filter(|name| !known.iter().any(|(known, _)| known == name));
        let of: Vec<(String, MachineNumber)> = free.zip(numbers).collect();
        let names: Vec<String> = of.iter().map(|(name, _)| name.clone()).collect();
        make(&self.directory).map_err(Fault::machinery)?;
        let place = self.directory.join(format!("clones-{}", self.next()));
        let clones = original.clones(of, place.clone()).await;
        let clones = clones.inspect_err(|_| drop(std::fs::remove_dir_all(&place)))?;
        hub.numbers.fetch_add(count, Ordering::Relaxed);
        let lines: Vec<_> = clones.iter().flat_map(|clone| clone.host_lines()).collect();
        let told = known
            .iter()
            .map(|(_, other)| other.introduce(lines.clone()));
        join_all(told).await;
        hub.join(names.iter().cloned().zip(clones).collect());
        Ok(Cloned { machines: names })
    }
}
