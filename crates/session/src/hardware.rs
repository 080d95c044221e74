//! What is done to a machine's hardware: QEMU's monitor, its control socket, its cables.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream, StreamExt};
use machinist_machine::{Machine, MachineError, Qmp};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::machines::fault;
use crate::protocol::Fault;

/// How many events are kept for who asks later.
const KEPT: usize = 4096;

/// What the QEMUs of a machine have told, so that nobody misses what came before he asked.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    told: Mutex<Told>,
    /// How much has been told in all.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Told {
    events: VecDeque<Arc<Value>>,
    /// How many came before the first of these.
    gone: u64,
}

impl Tape {
    /// Records what a QEMU tells, to its end. What an earlier one told is forgotten.
    pub(crate) fn record(self: &Arc<Self>, qmp: &Qmp) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.gone += told.events.len() as u64;
            told.events.clear();
        }
        let (tape, mut events) = (Arc::clone(self), qmp.events());
        // It ends with QEMU.
        drop(tokio::spawn(async move {
            while let Some(event) = events.next().await {
                tape.add(event);
            }
        }));
    }

    fn add(&self, event: Arc<Value>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.events.push_back(event);
        if told.events.len() > KEPT {
            told.events.pop_front();
            told.gone += 1;
        }
        self.count
            .send_replace(told.gone + told.events.len() as u64);
    }

    /// The first event that is not before number `from`, and the number after it.
    fn read(&self, from: u64) -> Option<(Value, u64)> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let from = from.max(told.gone);
        let event = told.events.get(usize::try_from(from - told.gone).ok()?)?;
        Some((Value::clone(event), from + 1))
    }

    /// All that is kept, and all that comes.
    pub(crate) fn play(self: &Arc<Self>) -> BoxStream<'static, Value> {
        let (tape, count) = (Arc::clone(self), self.count.subscribe());
        let next = |(tape, mut count, at): (Arc<Self>, watch::Receiver<u64>, u64)| async move {
            loop {
                count.mark_unchanged();
                if let Some((event, next)) = tape.read(at) {
                    return Some((event, (tape, count, next)));
                }
                count.changed().await.ok()?;
            }
        };
        stream::unfold((tape, count, 0), next).boxed()
    }
}

/// Runs a command of the QEMU machine protocol.
pub(crate) async fn qmp(machine: &Machine, name: &str, arguments: &Value) -> Result<Value, Fault> {
    let qmp = machine.qmp().await.map_err(|error| fault(&error))?;
    let answer = qmp.execute(name, arguments).await;
    answer.map_err(|why| {
        fault(&MachineError::Qmp {
            machine: machine.name().to_owned(),
            why,
        })
    })
}

/// An interface of a VM whose other end is a directory of the VDE protocol.
#[derive(Debug, PartialEq, Eq)]
struct VdeNic {
    /// As QEMU calls it.
    name: String,
    directory: PathBuf,
}

/// The directory of a VM's first interface on a VLAN: `eth1` of NixOS' guests.
pub(crate) async fn first_door(machine: &Machine) -> Result<Option<PathBuf>, Fault> {
    let known = machine.monitor("info network").await;
    let known = known.map_err(|error| fault(&error))?;
    Ok(vde_nics(&known).into_iter().next().map(|nic| nic.directory))
}

/// Tells the interfaces of a VM that their cables were pulled, or plugged in: those whose doors are
/// `wanted`.
pub(crate) async fn set_carrier(
    machine: &Machine,
    wanted: impl Fn(&Path) -> bool,
    up: bool,
) -> Result<(), Fault> {
    let known = machine.monitor("info network").await;
    let known = known.map_err(|error| fault(&error))?;
    for nic in vde_nics(&known) {
        if wanted(&nic.directory) {
            let arguments = json!({"name": nic.name, "up": up});
            qmp(machine, "set_link", &arguments).await?;
        }
    }
    Ok(())
}

/// The interfaces that QEMU's monitor tells of (`info network`): each has a line of its own, and
/// under it, marked by a backslash, that of what it is connected to.
fn vde_nics(text: &str) -> Vec<VdeNic> {
    let mut found = Vec::new();
    let mut nic = None;
    for line in text.lines() {
        let line = line.trim();
        let is_peer = line.starts_with('\\');
        let Some((name, what)) = line.trim_start_matches(['\\', ' ']).split_once(": ") else {
            continue;
        };
        if !is_peer {
            nic = what.contains("type=nic").then(|| name.to_owned());
            continue;
        }
        let socket = what
            .contains("type=vde")
            .then(|| what.split_once("sock="))
            .flatten();
        if let (Some(name), Some((_, socket))) = (nic.take(), socket) {
            // The descriptor comes last; a path may have a comma.
            let directory = socket.rsplit_once(",fd=").map_or(socket, |(path, _)| path);
            let directory = directory.into();
            found.push(VdeNic { name, directory });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_monitor() {
        let text = "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n \\ user.0: index=0,type=user,net=10.0.2.0,restrict=off\r\nvirtio-net-pci.1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:01:01\r\n \\ vlan1: index=0,type=vde,sock=/run/a,b/v0,fd=17\r\n";
        let nic = VdeNic {
            name: "virtio-net-pci.1".to_owned(),
            directory: "/run/a,b/v0".into(),
        };
        assert_eq!(vde_nics(text), [nic]);
        assert_eq!(vde_nics(""), []);
        assert_eq!(vde_nics("hub 0\n \\ a: type=vde,sock=/x\n"), []);
    }

    #[tokio::test]
    async fn a_tape_is_played_from_its_beginning_and_on() {
        let tape = Arc::new(Tape::default());
        tape.add(Arc::new(json!(1)));
        let mut playing = tape.play();
        assert_eq!(playing.next().await, Some(json!(1)));
        let add = async {
            tokio::task::yield_now().await;
            tape.add(Arc::new(json!(2)));
        };
        let (second, ()) = tokio::join!(playing.next(), add);
        assert_eq!(second, Some(json!(2)));
        for number in 0..=KEPT {
            tape.add(Arc::new(json!(number)));
        }
        let first = tape.play().next().await;
        assert_eq!(first, Some(json!(1)), "the oldest are forgotten");
    }
}
