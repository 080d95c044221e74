//! The machines of a session.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machinist_events::{What, printed_line};
use machinist_guest::Agent;
use machinist_lab::{Ready, RunsAs};
use machinist_machine::{
    Accel, AgentBinary, Attach, Boot, Console, Environment, Machine, MachineError, Report,
    Reporter, StartOptions, State, Verdicts,
};

use crate::chain;
use crate::control::{Control, Doing, Places};
use crate::images::Images;
use crate::log::Log;
use crate::network::Network;
use crate::plan::MachinePlan;
use crate::protocol::Fault;
use crate::readiness;
use crate::scripted::ScriptPlan;

/// Longer than any machine lives, for waits whose limit others keep.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// How long a machine whose agent has gone may take to notice why.
const NOTICE: Duration = Duration::from_secs(2);
/// How long a machine may take to power off before it is killed, where nobody says.
const POWER_OFF: Duration = Duration::from_secs(90);

/// What the machines of a session share.
pub(crate) struct Ground {
    pub(crate) images: Images,
    pub(crate) log: Arc<Log>,
    pub(crate) network: Arc<Network>,
    pub(crate) exe: PathBuf,
    pub(crate) agent: AgentBinary,
    pub(crate) verdicts: Verdicts,
    pub(crate) accel: Accel,
    pub(crate) boot: Boot,
    /// The directory of the machines' directories.
    pub(crate) directory: PathBuf,
    pub(crate) hidden: Vec<PathBuf>,
}

/// What a machine is made from.
pub(crate) enum Recipe {
    /// What a lab says of it.
    Lab {
        plan: MachinePlan,
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
    /// The boot in which commands could count on the machine's system, counted from 1.
    settled: AtomicU64,
}

impl SessionMachine {
    pub(crate) fn new(recipe: Recipe, ground: Arc<Ground>) -> Self {
        Self {
            recipe,
            ground,
            machine: Mutex::new(None),
            making: tokio::sync::Mutex::new(()),
            settled: AtomicU64::new(0),
        }
    }

    /// The machine, if it has been made.
    fn made(&self) -> Option<Machine> {
        self.cell().clone()
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
        let environment = Environment {
            dir: ground.directory.join(self.name()),
            exe: ground.exe.clone(),
            agent: ground.agent.clone(),
            attach: Arc::clone(&ground.network) as Arc<dyn Attach>,
            report: reporter(Arc::clone(&ground.log), self.name().to_owned()),
            verdicts: ground.verdicts.clone(),
            hidden: ground.hidden.clone(),
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
            Recipe::Script(script) => script.make(environment),
        }
    }

    /// Its agent, after its start where it is off. A machine that has failed stays so, unless it is
    /// asked to start in so many words: what comes later must not hide the failure.
    async fn started(
        &self,
        anew: bool,
        allow_reboot: Option<bool>,
    ) -> Result<(Machine, Agent), Fault> {
        let options = StartOptions {
            may_restart: allow_reboot.unwrap_or_else(|| self.recipe.may_restart()),
        };
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
            return Ok((machine, agent));
        }
        // A machine that leaves just now is waited for, and started again if it went off.
        loop {
            let leaving = matches!(
                status.borrow_and_update().state,
                State::Silent | State::Rebooting | State::Stopping
            );
            if !leaving {
                match machine.start(options).await {
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

    async fn settled(&self) -> Result<Agent, Fault> {
        let (machine, agent) = self.started(false, None).await?;
        let status = machine.status().borrow().clone();
        if self.ground.boot == Boot::System
            && status.state != State::Ready
            && self.settled.load(Ordering::Relaxed) != status.boots
        {
            readiness::commands_work(&machine, &agent).await;
            self.settled.store(status.boots, Ordering::Relaxed);
        }
        Ok(agent)
    }

    fn running(&self) -> Result<Machine, Fault> {
        self.made()
            .ok_or_else(|| Fault::usage(format!("{} is off", self.name())))
    }
}

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

    fn start(&self, allow_reboot: Option<bool>) -> Doing<'_, Agent> {
        Box::pin(async move { Ok(self.started(true, allow_reboot).await?.1) })
    }

    fn agent(&self) -> Doing<'_, Agent> {
        Box::pin(self.settled())
    }

    fn ready(&self) -> Doing<'_, ()> {
        Box::pin(async {
            let (machine, agent) = self.started(false, None).await?;
            if self.ground.boot == Boot::Agent {
                return Ok(());
            }
            match self.recipe.ready() {
                Ready::Agent => Ok(()),
                Ready::System => machine.ready(FOREVER).await.map_err(|error| fault(&error)),
                Ready::Unit(name) => readiness::unit(&agent, name, None, &mut |_| {}).await,
                Ready::Command(command) => {
                    readiness::command(&self.settled().await?, command).await
                }
            }
        })
    }

    fn shutdown(&self, within: Option<Duration>) -> Doing<'_, ()> {
        Box::pin(async move {
            let Some(machine) = self.made() else {
                return Ok(());
            };
            if machine.status().borrow().state == State::Off {
                return Ok(());
            }
            let within = within.unwrap_or(POWER_OFF);
            machine
                .shutdown(within)
                .await
                .map_err(|error| fault(&error))
        })
    }

    fn crash(&self) -> Doing<'_, ()> {
        Box::pin(async {
            match self.made() {
                None => Ok(()),
                Some(machine) => machine.crash().await.map_err(|error| fault(&error)),
            }
        })
    }

    fn reboot(&self) -> Doing<'_, ()> {
        Box::pin(async {
            self.running()?
                .reboot()
                .await
                .map_err(|error| fault(&error))
        })
    }

    fn wait_shutdown(&self) -> Doing<'_, ()> {
        Box::pin(async {
            match self.made() {
                None => Ok(()),
                Some(machine) => {
                    let off = machine.wait_for_shutdown(FOREVER).await;
                    off.map_err(|error| fault(&error))
                }
            }
        })
    }

    fn why_lost(&self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(async {
            let machine = self.made()?;
            let mut status = machine.status();
            let before = status.borrow().boots;
            let gone = status.wait_for(|status| {
                let known = !status.state.answers() && status.state != State::Silent;
                known || status.boots > before
            });
            // One that neither goes on nor off within this time is told as it is.
            drop(tokio::time::timeout(NOTICE, gone).await);
            let status = machine.status().borrow().clone();
            let name = self.name();
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
        Box::pin(async move {
            let Some(machine) = self.made() else {
                return;
            };
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

    fn published(&self) -> Vec<String> {
        let Some(machine) = self.made() else {
            return Vec::new();
        };
        let status = machine.status();
        let published = status.borrow().published.clone();
        published.iter().map(ToString::to_string).collect()
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

    fn console(&self) -> Doing<'_, Console> {
        Box::pin(async { Ok(self.machine().await?.console().clone()) })
    }
}

/// A machine's trouble as a client is told it.
pub(crate) fn fault(error: &MachineError) -> Fault {
    let text = chain::text(error);
    match error {
        // It makes no sense now: the script's mistake, or the machine's, but not ours.
        MachineError::Refused { .. } | MachineError::Off { .. } => Fault::usage(text),
        MachineError::Late { .. } => Fault::test(text),
        _ => Fault::machinery(text),
    }
}

/// Tells what happens to a machine as events.
fn reporter(log: Arc<Log>, machine: String) -> Reporter {
    Arc::new(move |report| {
        let what = match report {
            Report::Starting { backend, accel } => What::MachineStarting {
                backend: backend.to_owned(),
                accel: accel.map(str::to_owned),
            },
            Report::AccelFallback { reason } => What::AccelFallback { reason },
            Report::Up { seconds } => What::MachineUp { seconds },
            Report::Ready { seconds } => What::MachineReady { seconds },
            Report::Stopped => What::MachineStopped,
            Report::Failed { reason, last_words } => What::MachineFailed {
                reason,
                last_words: last_words
                    .iter()
                    .map(|line| printed_line(line.as_bytes()))
                    .collect(),
            },
            Report::Console { line } => What::Console {
                line: printed_line(line.as_bytes()),
            },
            Report::Warning { text } => What::Warning { text },
        };
        log.emit_of(&machine, what);
    })
}
