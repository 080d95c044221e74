//! What the session protocol can ask of a machine, done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use machinist_guest::Agent;
use machinist_lab::{Checkpoint as Checkpoints, Ready, RunsAs};
use machinist_machine::checkpoint::{Checkpoint, Taking};
use machinist_machine::{Attach, Boot, Console, HostLine, Machine, State, Status};
use machinist_network::addresses::MachineNumber;
use serde_json::Value;

use super::{FOREVER, Recipe, SessionMachine, clones, fault};
use crate::chain;
use crate::control::{Control, Doing, Making, Places};
use crate::hardware;
use crate::protocol::{Fault, Published};
use crate::readiness;

/// How long a machine whose agent has gone may take to notice why.
const NOTICE: Duration = Duration::from_secs(2);
/// How long a machine may take to power off before it is killed, where nobody says.
const POWER_OFF: Duration = Duration::from_secs(90);

impl Control for SessionMachine {
    fn kind(&self) -> &'static str {
        match self.runs_as() {
            RunsAs::Vm => "vm",
            RunsAs::Container => "container",
        }
    }

    fn addresses(&self) -> Vec<String> {
        match &self.recipe {
            Recipe::Lab { plan, .. } => plan.addresses(),
            Recipe::Script(_) => Vec::new(),
        }
    }

    fn env(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        match &self.recipe {
            Recipe::Lab { env, .. } => env,
            Recipe::Script(_) => &NONE,
        }
    }

    fn state(&self) -> &'static str {
        let state = self
            .made()
            .map(|machine| machine.status().borrow().state.clone());
        match state {
            // What does not start is told by who waits for it.
            None | Some(State::Off) if self.turns.is_to_start() => "starting",
            None | Some(State::Off) => "off",
            Some(State::Starting | State::Rebooting) => "starting",
            Some(State::Up) => "up",
            Some(State::Ready) => "ready",
            Some(State::Silent | State::Stopping) => "stopping",
            Some(State::Failed { .. }) => "failed",
        }
    }

    fn prepare(&self) -> Doing<'_, ()> {
        Box::pin(async { self.machine().await.map(drop) })
    }

    fn start(self: Arc<Self>, allow_reboot: Option<bool>) -> Doing<'static, Agent> {
        let mut turn = self.turns.start();
        Box::pin(async move { Ok(self.started(&mut turn, true, allow_reboot).await?.1) })
    }

    fn agent(&self) -> Doing<'_, Agent> {
        let mut turn = self.turns.need();
        Box::pin(async move { self.settled(&mut turn).await })
    }

    fn ready(&self) -> Doing<'_, ()> {
        let mut turn = self.turns.need();
        Box::pin(async move {
            let (machine, agent) = self.started(&mut turn, false, None).await?;
            if self.ground.boot == Boot::Agent {
                return Ok(());
            }
            match self.recipe.ready() {
                Ready::Agent => Ok(()),
                Ready::System => machine.ready(FOREVER).await.map_err(|error| fault(&error)),
                Ready::Unit(name) => readiness::unit(&agent, name, None, &mut |_| {}).await,
                Ready::Command(command) => {
                    readiness::command(&self.settled(&mut turn).await?, command).await
                }
            }
        })
    }

    fn shutdown(&self, within: Option<Duration>) -> Doing<'_, ()> {
        self.turns.end();
        Box::pin(async move {
            let Some(machine) = self.made() else {
                return Ok(());
            };
            if machine.status().borrow().state == State::Off {
                return Ok(());
            }
            let within = within.unwrap_or(match self.recipe {
                Recipe::Lab { .. } => POWER_OFF,
                // NixOS' driver waits for ever.
                Recipe::Script(_) => FOREVER,
            });
            machine
                .shutdown(within)
                .await
                .map_err(|error| fault(&error))
        })
    }

    fn crash(&self) -> Doing<'_, ()> {
        self.turns.end();
        Box::pin(async {
            match self.made() {
                None => Ok(()),
                Some(machine) => machine.crash().await.map_err(|error| fault(&error)),
            }
        })
    }

    fn reboot(&self) -> Doing<'_, ()> {
        Box::pin(async {
            let machine = self.running().await?;
            let mut status = machine.status();
            let boots = status.borrow().boots;
            let back = machine.reboot();
            if matches!(self.recipe, Recipe::Lab { .. }) {
                return back.await.map_err(|error| fault(&error));
            }
            // As NixOS' driver does it: what a system asks on its way, such as a passphrase, the
            // script answers after this.
            let left = status.wait_for(|now| !now.state.answers() || now.boots > boots);
            tokio::select! {
                back = back => back.map_err(|error| fault(&error)),
                _ = left => Ok(()),
            }
        })
    }

    fn wait_shutdown(&self) -> Doing<'_, ()> {
        Box::pin(async {
            // Who says it after a start means the end that comes after that.
            self.turns.told().await;
            let Some(machine) = self.made() else {
                return Ok(());
            };
            let off = machine.wait_for_shutdown(FOREVER).await;
            match self.recipe {
                Recipe::Lab { .. } => off.map_err(|error| fault(&error)),
                // As NixOS' driver sees it, however the script's process ended.
                Recipe::Script(_) => Ok(()),
            }
        })
    }

    fn why_lost(&self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(async {
            let machine = self.made()?;
            let mut status = machine.status();
            let (before, ends) = {
                let now = status.borrow();
                (now.boots, now.ends)
            };
            let gone = status.wait_for(|status| {
                let known = !status.state.answers() && status.state != State::Silent;
                known || status.boots > before || status.ends > ends
            });
            // One that neither goes on nor off within this time is told as it is.
            drop(tokio::time::timeout(NOTICE, gone).await);
            let status = machine.status().borrow().clone();
            let name = self.name();
            if let Some((boots, reason)) = &*self.went_back()
                && *boots == before
            {
                return Some(reason.clone());
            }
            if status.ends > ends && !status.state.is_over() {
                // Somebody started it again at once.
                return Some(match status.failure {
                    Some(reason) => format!("{name}: {reason}"),
                    None => format!("{name} went off"),
                });
            }
            Some(match status.state {
                State::Failed { reason } => format!("{name}: {reason}"),
                State::Off | State::Stopping => format!("{name} went off"),
                State::Rebooting | State::Starting => format!("{name} restarted"),
                State::Up | State::Ready if status.boots > before => format!("{name} restarted"),
                State::Up | State::Ready | State::Silent => {
                    format!("{name} no longer answers")
                }
            })
        })
    }

    fn end(&self, grace: Option<Duration>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.turns.end();
        Box::pin(async move {
            let Some(machine) = self.made() else {
                return;
            };
            // A machine that is gone has none.
            drop(machine.forget_all().await);
            if machine.status().borrow().state == State::Off {
                return;
            }
            // What does not go by asking is killed; of a machine that has failed the rest is waited
            // for.
            match grace {
                Some(grace) => drop(machine.shutdown(grace).await),
                None => drop(machine.crash().await),
            }
        })
    }

    fn launch(&self, allow_reboot: Option<bool>) -> Doing<'_, bool> {
        let mut turn = self.turns.start();
        Box::pin(async move {
            // Of a lab's machine it is the image that takes long, and nobody speaks to its QEMU.
            if matches!(self.recipe, Recipe::Lab { .. }) {
                return Ok(false);
            }
            let machine = self.machine().await?;
            let Some(launch) = turn.tell(|| machine.launch(self.options(allow_reboot))) else {
                return Err(fault(&self.is_off()));
            };
            launch.await.map_err(|error| fault(&error))?;
            self.tape(&machine).await;
            Ok(true)
        })
    }

    fn status(&self) -> Option<tokio::sync::watch::Receiver<Status>> {
        self.made().map(|machine| machine.status())
    }

    fn pid(&self) -> Option<u32> {
        self.made()?.process()
    }

    fn switch_root(&self) -> Doing<'_, ()> {
        Box::pin(async {
            let machine = self.machine().await?;
            let switched = machine.switch_root(FOREVER).await;
            switched.map_err(|error| fault(&error))
        })
    }

    fn monitor(&self, command: String) -> Doing<'_, String> {
        Box::pin(async move {
            let answer = self.running().await?.monitor(&command).await;
            answer.map_err(|error| fault(&error))
        })
    }

    fn qmp(&self, command: String, arguments: Value) -> Doing<'_, Value> {
        Box::pin(async move {
            let machine = self.running().await?;
            // What comes of it is to be heard: a machine that was saved and restored has another
            // QEMU than when it was launched.
            self.tape(&machine).await;
            hardware::qmp(&machine, &command, &arguments).await
        })
    }

    fn qmp_events(&self) -> Doing<'_, BoxStream<'static, Value>> {
        Box::pin(async {
            let machine = self.running().await?;
            machine.qmp().await.map_err(|error| fault(&error))?;
            self.tape(&machine).await;
            Ok(self.tape.play())
        })
    }

    fn take_along(&self, dir: PathBuf) -> Doing<'_, ()> {
        Box::pin(async move {
            let machine = self.machine().await?;
            let Some(spec) = machine.spec() else {
                return Err(Fault::usage("a start script has no image to take along"));
            };
            let image = spec.image.clone();
            let copied = tokio::task::spawn_blocking(move || image.export(&dir)).await;
            let copied = copied.map_err(Fault::machinery)?;
            copied.map_err(|error| Fault::machinery(chain::text(&error)))
        })
    }

    fn screenshot(&self) -> Doing<'_, Vec<u8>> {
        Box::pin(async {
            let picture = self.running().await?.screenshot().await;
            picture.map_err(|error| fault(&error))
        })
    }

    fn console_send(&self, bytes: Vec<u8>) -> Doing<'_, ()> {
        Box::pin(async move {
            let sent = self.running().await?.console_send(&bytes).await;
            sent.map_err(|error| fault(&error))
        })
    }

    fn vlan_of_block(&self) -> Doing<'_, Option<u32>> {
        Box::pin(async move {
            let (Recipe::Script(script), Some(machine)) = (&self.recipe, self.made()) else {
                return Ok(None);
            };
            let network = Arc::clone(&self.ground.network);
            if script.is_vm() {
                if machine.status().borrow().state.is_over() {
                    return Ok(None);
                }
                let door = hardware::first_door(&machine).await?;
                return Ok(door.and_then(|door| network.vlan_of_door(&script.name, &door)));
            }
            let (Some(leader), Some(ground)) = (machine.leader(), network.ground()) else {
                return Ok(None);
            };
            let found = tokio::task::spawn_blocking(move || ground.first_vlan(leader));
            let found = found.await.map_err(Fault::machinery)?;
            found.map_err(|error| Fault::machinery(chain::text(&error)))
        })
    }

    fn carrier(&self, vlan: Option<u32>, up: bool) -> Doing<'_, ()> {
        Box::pin(async move {
            let Recipe::Script(script) = &self.recipe else {
                return Ok(());
            };
            let Some(machine) = self.made() else {
                return Ok(());
            };
            let network = Arc::clone(&self.ground.network);
            if script.is_vm() {
                if machine.status().borrow().state.is_over() {
                    return Ok(());
                }
                let wanted = |door: &Path| {
                    let number = network.vlan_of_door(&script.name, door);
                    number.is_some() && (vlan.is_none() || vlan == number)
                };
                return hardware::set_carrier(&machine, wanted, up).await;
            }
            let Some(leader) = machine.leader() else {
                return Ok(());
            };
            let Some(ground) = network.ground() else {
                return Ok(());
            };
            let set = tokio::task::spawn_blocking(move || ground.set_links(leader, vlan, up));
            let set = set.await.map_err(Fault::machinery)?;
            set.map_err(|error| Fault::machinery(chain::text(&error)))
        })
    }

    fn set_state_dir(&self, path: PathBuf) -> Doing<'_, ()> {
        Box::pin(async move {
            let Recipe::Script(script) = &self.recipe else {
                return Err(Fault::usage("only machines of start scripts keep a state"));
            };
            let _making = self.making.lock().await;
            let mut machine = self.cell();
            let is_off = |machine: &Machine| machine.status().borrow().state.is_over();
            if !machine.as_ref().is_none_or(is_off) {
                let name = self.name();
                return Err(Fault::usage(format!("{name} runs, in its state directory")));
            }
            let set = script.set_state_dir(&path);
            set.map_err(|error| Fault::usage(chain::text(&error)))?;
            // The next start makes it anew, there.
            *machine = None;
            Ok(())
        })
    }

    fn published(&self) -> Vec<Published> {
        let Some(machine) = self.made() else {
            return Vec::new();
        };
        let status = machine.status();
        let published = status.borrow().published.clone();
        let Recipe::Lab { plan, .. } = &self.recipe else {
            return Vec::new();
        };
        let ports = published.iter().zip(plan.guest_ports());
        ports
            .map(|(host, guest)| Published {
                host: host.to_string(),
                guest,
            })
            .collect()
    }

    fn places(&self) -> Places {
        match &self.recipe {
            Recipe::Lab { plan, .. } => Places {
                state: self.ground.directory.join(&plan.name),
                shared: None,
            },
            Recipe::Script(script) => Places {
                state: script.state_dir(),
                shared: Some(script.shared_dir().to_owned()),
            },
        }
    }

    fn checkpoint_obstacle(&self) -> Option<String> {
        if let Recipe::Lab { plan, .. } = &self.recipe
            && (plan.runs_as, plan.checkpoint) == (RunsAs::Container, Checkpoints::Refuse)
        {
            return Some(
                "it is a container, whose processes cannot be saved (with `checkpoint = \
                 \"restart\"` in the lab file its files are, and it starts afresh with them)"
                    .into(),
            );
        }
        self.made()?.checkpoint_obstacle()
    }

    fn outside_checkpoints(&self) -> Option<String> {
        let Recipe::Lab { plan, .. } = &self.recipe else {
            return None;
        };
        let written = plan.written_outside();
        let places: Vec<String> = written
            .map(|volume| volume.target.display().to_string())
            .collect();
        let of_host = "are the host's, and do not go back with it";
        (!places.is_empty()).then(|| format!("its volumes ({}) {of_host}", places.join(", ")))
    }

    fn begin_checkpoint(&self, place: PathBuf) -> Doing<'_, Option<Taking>> {
        Box::pin(async move {
            let Some(machine) = self.made() else {
                return Ok(None);
            };
            let taking = machine.begin_checkpoint(&place).await;
            taking.map(Some).map_err(|error| fault(&error))
        })
    }

    fn host_lines(&self) -> Vec<HostLine> {
        match &self.recipe {
            Recipe::Lab { plan, .. } => plan.own_lines(),
            Recipe::Script(_) => Vec::new(),
        }
    }

    fn introduce(&self, others: Vec<HostLine>) -> Doing<'_, ()> {
        Box::pin(async move {
            if let Some(agent) = self.made().and_then(|machine| machine.agent().ok()) {
                clones::introduce(&agent, &others).await;
            }
            Ok(())
        })
    }

    fn clones(
        &self,
        of: Vec<(String, MachineNumber)>,
        place: PathBuf,
    ) -> Doing<'_, Vec<Arc<dyn Control>>> {
        Box::pin(async move { self.make_clones(of, place).await })
    }

    fn restore(&self, checkpoint: Checkpoint, name: &str) -> Doing<'_, ()> {
        let reason = format!("the lab went back to the checkpoint {name:?}");
        Box::pin(async move {
            let machine = self.machine().await?;
            let boots = machine.status().borrow().boots;
            *self.went_back() = Some((boots, reason));
            let restored = machine.restore(&checkpoint).await;
            restored.map_err(|error| fault(&error))
        })
    }

    fn reserve(&self, checkpoint: &Checkpoint) -> Making<'_> {
        let checkpoint = checkpoint.clone();
        Box::pin(async move { self.make_spare(&checkpoint).await })
    }

    fn forget(&self, checkpoint: &Checkpoint) -> Making<'_> {
        let checkpoint = checkpoint.clone();
        Box::pin(async move { self.end_spare(&checkpoint).await })
    }

    fn console(&self) -> Doing<'_, Console> {
        Box::pin(async { Ok(self.machine().await?.console().clone()) })
    }
}
