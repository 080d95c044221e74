//! The machines of a session.

mod clones;
mod control;
mod spare;
mod tell;
mod turns;

pub(crate) use tell::fault;
use tell::reporter;
use turns::{Turn, Turns};

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machinist_events::What;
use machinist_guest::Agent;
use machinist_lab::{Ready, RunsAs};
use machinist_machine::{
    Accel, AgentBinary, Attach, Boot, Environment, Machine, MachineError, SnapshotStore,
    StartOptions, State, Verdicts,
};

use crate::chain;
use crate::hardware::Tape;
use crate::images::Images;
use crate::log::Log;
use crate::network::Network;
use crate::plan::MachinePlan;
use crate::protocol::Fault;
use crate::readiness;
use crate::scripted::ScriptPlan;
use crate::sharing::{Gate, Places, Until, Usage};
use crate::snapshots::LazySnapshots;

/// Longer than any machine lives, for waits whose limit others keep.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What the machines of a session share.
pub(crate) struct Ground {
    pub(crate) images: Images,
    pub(crate) log: Arc<Log>,
    pub(crate) network: Arc<Network>,
    pub(crate) exe: PathBuf,
    pub(crate) agent: AgentBinary,
    pub(crate) verdicts: Verdicts,
    /// Where programs are looked for.
    pub(crate) search: OsString,
    pub(crate) accel: Accel,
    pub(crate) boot: Boot,
    pub(crate) snapshots: LazySnapshots,
    pub(crate) places: Places,
    /// What the machines have of the host's memory.
    pub(crate) usage: Usage,
    /// By the groups whose machines share a snapshot.
    pub(crate) gates: Mutex<HashMap<String, Arc<Gate>>>,
    /// The session's id.
    pub(crate) session: String,
    /// The directory of the machines' directories.
    pub(crate) directory: PathBuf,
    pub(crate) hidden: Vec<PathBuf>,
}

impl Ground {
    /// Where one machine of a group goes first.
    fn gate(&self, group: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(group.to_owned()).or_default())
    }

    /// Where VMs are restored from. Without it they boot.
    async fn snapshots(&self, machine: &str) -> Option<SnapshotStore> {
        let lazy = self.snapshots.clone();
        let opened = tokio::task::spawn_blocking(move || lazy.get()).await;
        match opened {
            Ok(Ok(store)) => Some(store),
            Ok(Err(error)) => {
                let reason = chain::text(&error);
                self.log.emit_of(machine, What::MachineCold { reason });
                None
            }
            Err(_) => None,
        }
    }
}

/// What a machine is made from.
pub(crate) enum Recipe {
    /// What a lab says of it.
    Lab {
        plan: Box<MachinePlan>,
        env: BTreeMap<String, String>,
        ready: Ready,
    },
    /// A start script.
    Script(ScriptPlan),
}

impl Recipe {
    fn ready(&self) -> &Ready {
        match self {
            Self::Lab { ready, .. } => ready,
            Self::Script(_) => &Ready::System,
        }
    }

    /// Whether a restart of the machine's own is one, where nobody says.
    fn may_restart(&self) -> bool {
        matches!(self, Self::Lab { .. })
    }
}

/// A machine of a session. It is made, and its image, when it is first needed.
pub(crate) struct SessionMachine {
    recipe: Recipe,
    ground: Arc<Ground>,
    machine: Mutex<Option<Machine>>,
    /// Held by who makes it.
    making: tokio::sync::Mutex<()>,
    /// What has been said to it.
    turns: Arc<Turns>,
    /// What its QEMU has told, and the process that tells it.
    tape: Arc<Tape>,
    taped: Mutex<Option<u32>>,
    /// The boot in which commands could count on the machine's system, counted from 1.
    settled: AtomicU64,
    /// How often it had booted when it last went back to a checkpoint, and what is said of that.
    went_back: Mutex<Option<(u64, String)>>,
}

impl SessionMachine {
    pub(crate) fn new(recipe: Recipe, ground: Arc<Ground>) -> Self {
        Self {
            recipe,
            ground,
            machine: Mutex::new(None),
            making: tokio::sync::Mutex::new(()),
            turns: Arc::default(),
            tape: Arc::default(),
            taped: Mutex::new(None),
            settled: AtomicU64::new(0),
            went_back: Mutex::default(),
        }
    }

    /// The machine, if it has been made.
    fn made(&self) -> Option<Machine> {
        self.cell().clone()
    }

    fn went_back(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.went_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self) -> MutexGuard<'_, Option<Machine>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn machine(&self) -> Result<Machine, Fault> {
        if let Some(machine) = self.made() {
            return Ok(machine);
        }
        let _making = self.making.lock().await;
        if let Some(machine) = self.made() {
            return Ok(machine);
        }
        let machine = self.make().await?;
        *self.cell() = Some(machine.clone());
        Ok(machine)
    }

    fn name(&self) -> &str {
        match &self.recipe {
            Recipe::Lab { plan, .. } => &plan.name,
            Recipe::Script(script) => &script.name,
        }
    }

    fn runs_as(&self) -> RunsAs {
        match &self.recipe {
            Recipe::Lab { plan, .. } => plan.runs_as,
            Recipe::Script(script) => script.runs_as(),
        }
    }

    async fn make(&self) -> Result<Machine, Fault> {
        let ground = &self.ground;
        let snapshots = match &self.recipe {
            Recipe::Lab { plan, .. } if plan.is_warm() => ground.snapshots(&plan.name).await,
            Recipe::Script(plan) if plan.is_warm() => ground.snapshots(&plan.name).await,
            _ => None,
        };
        let environment = Environment {
            dir: ground.directory.join(self.name()),
            exe: ground.exe.clone(),
            agent: ground.agent.clone(),
            attach: Arc::clone(&ground.network) as Arc<dyn Attach>,
            report: reporter(ground, self.name().to_owned(), self.gate()),
            verdicts: ground.verdicts.clone(),
            search: ground.search.clone(),
            hidden: ground.hidden.clone(),
            snapshots,
        };
        match &self.recipe {
            Recipe::Lab { plan, .. } => {
                let image = ground.images.get(&plan.image, plan.want).await?;
                let boot = match plan.runs_as {
                    RunsAs::Vm => ground.boot,
                    // A container's init is its own in any case; commands just do not wait for it.
                    RunsAs::Container => Boot::System,
                };
                let spec = plan.spec(image, ground.accel, boot);
                Machine::new(spec, environment)
                    .map_err(|error| Fault::machinery(chain::text(&error)))
            }
            Recipe::Script(script) => {
                if script.runs_as() == RunsAs::Container {
                    let network = Arc::clone(&ground.network);
                    let laid = tokio::task::spawn_blocking(move || network.lay_ground());
                    let laid = laid.await.map_err(Fault::machinery)?;
                    laid.map_err(|error| Fault::machinery(chain::text(&error)))?;
                }
                script.make(environment)
            }
        }
    }

    /// Its agent, after its start where it is off. A machine that has failed stays so, unless it is
    /// asked to start in so many words: what comes later must not hide the failure.
    async fn started(
        &self,
        turn: &mut Turn,
        anew: bool,
        allow_reboot: Option<bool>,
    ) -> Result<(Machine, Agent), Fault> {
        let options = self.options(allow_reboot);
        let machine = self.machine().await?;
        if !anew && matches!(machine.status().borrow().state, State::Failed { .. }) {
            return Err(match machine.agent() {
                Err(error) => fault(&error),
                Ok(_) => Fault::machinery(format!("{} has failed", self.name())),
            });
        }
        let mut status = machine.status();
        // So it is for almost every command, which need not ask the machine's task then.
        if status.borrow().state.answers()
            && let Ok(agent) = machine.agent()
        {
            turn.known();
            return Ok((machine, agent));
        }
        // A machine that leaves just now is waited for, and started again if it went off.
        loop {
            let leaving = matches!(
                status.borrow_and_update().state,
                State::Silent | State::Rebooting | State::Stopping
            );
            if leaving {
                turn.known();
            } else {
                let is_script = matches!(self.recipe, Recipe::Script(_));
                if is_script && let Some(launch) = turn.tell(|| machine.launch(options)) {
                    // What its QEMU tells is recorded from the first moment on. Why it does not
                    // start, the next line says.
                    drop(launch.await);
                    self.tape(&machine).await;
                }
                match self.start(&machine, options, turn).await {
                    Err(MachineError::Refused { .. }) => {}
                    Err(error) => return Err(fault(&error)),
                    Ok(()) => {
                        if let Ok(agent) = machine.agent() {
                            return Ok((machine, agent));
                        }
                    }
                }
            }
            if status.changed().await.is_err() {
                return Err(Fault::machinery(format!("{} is gone", self.name())));
            }
        }
    }

    /// Starts it, in its turn, unless it has been told to go off since.
    async fn start(
        &self,
        machine: &Machine,
        options: StartOptions,
        turn: &mut Turn,
    ) -> Result<(), MachineError> {
        let start = async {
            match turn.tell(|| machine.start(options)) {
                Some(start) => start.await,
                None => Err(self.is_off()),
            }
        };
        let Recipe::Lab { plan, .. } = &self.recipe else {
            return start.await;
        };
        if !machine.status().borrow().state.is_over() {
            return start.await;
        }
        let _first = match self.gate() {
            Some(gate) => Some(gate.pass().await),
            None => None,
        };
        let until = match plan.runs_as {
            RunsAs::Vm if self.ground.boot == Boot::System => Until::Ready,
            _ => Until::Up,
        };
        self.ground.places.start(machine, start, until).await
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        match &self.recipe {
            Recipe::Lab { plan, .. } if plan.is_warm() => {
                plan.group.as_deref().map(|group| self.ground.gate(group))
            }
            _ => None,
        }
    }

    async fn settled(&self, turn: &mut Turn) -> Result<Agent, Fault> {
        let (machine, agent) = self.started(turn, false, None).await?;
        let status = machine.status().borrow().clone();
        // The shell of a script's VM comes when its system wants that.
        let is_settled = matches!(&self.recipe, Recipe::Script(script) if script.is_vm());
        if self.ground.boot == Boot::System
            && !is_settled
            && status.state != State::Ready
            && self.settled.load(Ordering::Relaxed) != status.boots
        {
            readiness::commands_work(&machine, &agent).await;
            self.settled.store(status.boots, Ordering::Relaxed);
        }
        Ok(agent)
    }

    fn options(&self, allow_reboot: Option<bool>) -> StartOptions {
        StartOptions {
            may_restart: allow_reboot.unwrap_or_else(|| self.recipe.may_restart()),
        }
    }

    /// Records what the machine's QEMU tells, once for each of its starts.
    async fn tape(&self, machine: &Machine) {
        let Ok(qmp) = machine.qmp().await else {
            return;
        };
        let pid = machine.pid();
        let mut taped = self.taped.lock().unwrap_or_else(PoisonError::into_inner);
        if *taped != pid {
            *taped = pid;
            self.tape.record(&qmp);
        }
    }

    /// The machine, once it knows of the starts that were asked for before.
    async fn running(&self) -> Result<Machine, Fault> {
        self.turns.told().await;
        self.made().ok_or_else(|| fault(&self.is_off()))
    }

    fn is_off(&self) -> MachineError {
        MachineError::Off {
            machine: self.name().to_owned(),
        }
    }
}
