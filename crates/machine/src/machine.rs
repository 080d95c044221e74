//! A machine, as everybody but its task sees it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::Agent;
use crate::console::Console;
use crate::environment::{Environment, Report, console_log};
use crate::error::MachineError;
use crate::lifecycle::{Refused, State};
use crate::origin::Origin;
use crate::path_error::{PathContext, PathError};
use crate::qemu::frozen::Tops;
use crate::reach::Reach;
use crate::script::ScriptSpec;
use crate::spec::MachineSpec;
use crate::task::{Ask, Request, Task};

/// How a machine is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartOptions {
    /// The machine may restart. Otherwise its restart switches it off.
    pub may_restart: bool,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { may_restart: true }
    }
}

/// What is known of a machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// Of a failed machine: the end of its console, and of its backend's own output.
    pub last_words: Vec<String>,
    /// How often its agent has begun to answer.
    pub boots: u64,
    /// How often it has gone off or failed: who waits for that may come too late to see it, where
    /// somebody else starts it again at once.
    pub ends: u64,
    /// Why it failed, if the last of these was a failure.
    pub failure: Option<String>,
    /// Where its published ports are reached, in the order of its specification.
    pub published: Vec<SocketAddr>,
}

/// A machine. Clones are handles of the same one; when the last is dropped, it is killed.
#[derive(Debug, Clone)]
pub struct Machine {
    origin: Arc<Origin>,
    console: Console,
    requests: mpsc::UnboundedSender<Request>,
    status: watch::Receiver<Status>,
    agents: watch::Receiver<Option<Agent>>,
    reach: watch::Receiver<Reach>,
    tops: Tops,
    dir: Arc<Path>,
}

impl Machine {
    /// A machine that is off. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Its directory or its console's log cannot be made.
    pub fn new(spec: MachineSpec, environment: Environment) -> Result<Self, PathError> {
        Self::made(Origin::Lab(Box::new(spec)), environment)
    }

    /// A machine that somebody's start script runs. It is off. Must be called inside a tokio
    /// runtime. Of the environment, the network is not used: the script knows its VLANs' sockets.
    ///
    /// # Errors
    /// Its directory, its state directory, or its console's log cannot be made.
    pub fn scripted(spec: ScriptSpec, environment: Environment) -> Result<Self, PathError> {
        spec.prepare()?;
        Self::made(Origin::Script(Box::new(spec)), environment)
    }

    fn made(origin: Origin, environment: Environment) -> Result<Self, PathError> {
        let origin = Arc::new(origin);
        let dir = &environment.dir;
        std::fs::create_dir_all(dir).path(dir)?;
        let report = Arc::clone(&environment.report);
        let console = Console::new(
            Some(&console_log(dir)),
            Box::new(move |line| {
                report(Report::Console {
                    line: line.to_owned(),
                });
            }),
        )?;
        let (requests, requested) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(Status {
            state: State::Off,
            last_words: Vec::new(),
            boots: 0,
            ends: 0,
            failure: None,
            published: Vec::new(),
        });
        let (agents, agent) = watch::channel(None);
        let (reaches, reach) = watch::channel(Reach::default());
        let (tops, dir) = (Tops::default(), Arc::from(environment.dir.as_path()));
        let task = Task::new(
            Arc::clone(&origin),
            environment,
            console.clone(),
            &tops,
            told,
            agents,
            reaches,
        );
        // It ends when the last handle is gone, and then kills what runs.
        drop(tokio::spawn(task.run(requested)));
        Ok(Self {
            origin,
            console,
            requests,
            status,
            agents: agent,
            reach,
            tops,
            dir,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.origin.name()
    }

    /// What it was made from; none where that is a start script.
    #[must_use]
    pub fn spec(&self) -> Option<&MachineSpec> {
        match &*self.origin {
            Origin::Lab(spec) => Some(spec),
            Origin::Script(_) => None,
        }
    }

    /// The start script that it was made from, if it was.
    #[must_use]
    pub fn script(&self) -> Option<&ScriptSpec> {
        match &*self.origin {
            Origin::Lab(_) => None,
            Origin::Script(spec) => Some(spec),
        }
    }

    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.clone()
    }

    /// Where its writable disks lie.
    pub(crate) fn tops(&self) -> &Tops {
        &self.tops
    }

    /// Its own directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its console, over all its starts.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Where it is in its life, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Its agent, now and from now on: `None` while nobody answers.
    #[must_use]
    pub fn agents(&self) -> watch::Receiver<Option<Agent>> {
        self.agents.clone()
    }

    /// Its agent, which answers after [`Machine::start`].
    ///
    /// # Errors
    /// The machine is off, has failed, or restarts.
    pub fn agent(&self) -> Result<Agent, MachineError> {
        let agent = self.agents.borrow().clone();
        agent.ok_or_else(|| self.trouble(&self.status.borrow()))
    }

    /// Starts it, and waits until its agent answers. A machine that runs is left alone. It is asked
    /// when this is called: what is asked of it later comes after that.
    ///
    /// # Errors
    /// It could not be started, or is about to stop.
    pub fn start(
        &self,
        options: StartOptions,
    ) -> impl Future<Output = Result<(), MachineError>> + Send {
        let asked = self.ask(Ask::Start(options));
        async {
            asked.await?;
            self.until_it_answers().await
        }
    }

    /// Starts it, and waits until its backend runs, no longer: nothing has booted by then. A machine
    /// that runs is left alone. It is asked when this is called.
    ///
    /// # Errors
    /// It could not be started, or is about to stop.
    pub fn launch(
        &self,
        options: StartOptions,
    ) -> impl Future<Output = Result<(), MachineError>> + Send {
        let asked = self.ask(Ask::Start(options));
        async {
            asked.await?;
            self.until_it_runs().await
        }
    }

    async fn until_it_runs(&self) -> Result<(), MachineError> {
        let mut status = self.status.clone();
        let mut reach = self.reach.clone();
        tokio::select! {
            biased;
            runs = reach.wait_for(|reach| reach.running) => runs.map(drop).map_err(|_| self.gone()),
            over = status.wait_for(|status| status.state.is_over()) => match over {
                Ok(status) => Err(self.trouble(&status)),
                Err(_) => Err(self.gone()),
            },
        }
    }

    /// Waits until its agent answers.
    ///
    /// # Errors
    /// It is off or goes off, fails, or takes longer than `within`.
    pub async fn connected(&self, within: Duration) -> Result<(), MachineError> {
        let decided = |state: &State| match state {
            state if state.answers() => Some(true),
            state if state.is_over() => Some(false),
            _ => None,
        };
        self.wait(within, "its agent", decided).await
    }

    /// Waits until the machine's own system says that its start has finished.
    ///
    /// # Errors
    /// It goes off, fails, or takes longer than `within`.
    pub async fn ready(&self, within: Duration) -> Result<(), MachineError> {
        self.wait(
            within,
            "the end of its system's start",
            |state| match state {
                State::Ready => Some(true),
                state if state.is_over() => Some(false),
                _ => None,
            },
        )
        .await
    }

    /// Switches it off in order; what still runs after `within` is killed.
    ///
    /// # Errors
    /// It fails in its last moments.
    pub async fn shutdown(&self, within: Duration) -> Result<(), MachineError> {
        let before = self.status.borrow().ends;
        self.ask(Ask::Shutdown(within)).await?;
        self.until_off(before).await
    }

    /// Pulls the plug, and waits until the machine is gone.
    ///
    /// # Errors
    /// None of the machine's: a failed machine is gone as well.
    pub async fn crash(&self) -> Result<(), MachineError> {
        let before = self.status.borrow().ends;
        self.ask(Ask::PowerOff).await?;
        let mut status = self.status.clone();
        let over = status.wait_for(|status| status.state.is_over() || status.ends > before);
        over.await.map(drop).map_err(|_| self.gone())
    }

    /// Restarts it in order, and waits until its agent answers again.
    ///
    /// # Errors
    /// It does not run, or does not come back.
    pub async fn reboot(&self) -> Result<(), MachineError> {
        let before = self.status.borrow().boots;
        self.ask(Ask::Reboot).await?;
        let mut status = self.status.clone();
        let back = status
            .wait_for(|status| status.boots > before || status.state.is_over())
            .await
            .map_err(|_| self.gone())?
            .clone();
        if back.boots > before {
            return Ok(());
        }
        Err(self.trouble(&back))
    }

    /// Waits until the machine is off, without asking it to.
    ///
    /// # Errors
    /// It fails instead, or runs longer than `within`.
    pub async fn wait_for_shutdown(&self, within: Duration) -> Result<(), MachineError> {
        let before = self.status.borrow().ends;
        let off = tokio::time::timeout(within, self.until_off(before)).await;
        off.unwrap_or_else(|_| Err(self.late("its end", within)))
    }

    /// Why the machine does not answer, from what is known of it.
    pub(crate) fn trouble(&self, status: &Status) -> MachineError {
        let machine = self.name().to_owned();
        match &status.state {
            State::Off => MachineError::Off { machine },
            State::Failed { reason } => MachineError::Failed {
                machine,
                reason: reason.clone(),
                last_words: status.last_words.clone(),
            },
            State::Starting => MachineError::Refused {
                machine,
                why: Refused::NotRunning,
            },
            State::Up | State::Ready | State::Silent | State::Rebooting | State::Stopping => {
                MachineError::Refused {
                    machine,
                    why: Refused::Leaving,
                }
            }
        }
    }

    pub(crate) fn gone(&self) -> MachineError {
        MachineError::Gone {
            machine: self.name().to_owned(),
        }
    }

    /// Asks its task when this is called, and waits for the answer.
    pub(crate) fn ask(&self, what: Ask) -> impl Future<Output = Result<(), MachineError>> + Send {
        let (answer, answered) = oneshot::channel();
        // Without a task the answer is dropped with the request, and never comes.
        drop(self.requests.send(Request { what, answer }));
        async {
            match answered.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err(MachineError::Refused {
                    machine: self.name().to_owned(),
                    why,
                }),
                Err(_) => Err(self.gone()),
            }
        }
    }

    pub(crate) async fn until_it_answers(&self) -> Result<(), MachineError> {
        let mut status = self.status.clone();
        let now = status
            .wait_for(|status| status.state.answers() || status.state.is_over())
            .await
            .map_err(|_| self.gone())?
            .clone();
        if now.state.answers() {
            return Ok(());
        }
        Err(self.trouble(&now))
    }

    /// `before`: how often it had ended when it was asked to.
    async fn until_off(&self, before: u64) -> Result<(), MachineError> {
        let mut status = self.status.clone();
        let now = status
            .wait_for(|status| status.state.is_over() || status.ends > before)
            .await
            .map_err(|_| self.gone())?
            .clone();
        match now.failure.clone() {
            None => Ok(()),
            Some(_) if now.state.is_over() => Err(self.trouble(&now)),
            // It was started again since.
            Some(reason) => Err(MachineError::Failed {
                machine: self.name().to_owned(),
                reason,
                last_words: Vec::new(),
            }),
        }
    }

    fn late(&self, what: &'static str, within: Duration) -> MachineError {
        MachineError::Late {
            machine: self.name().to_owned(),
            what,
            within,
        }
    }

    /// Waits until `decided` says whether what was waited for has come.
    async fn wait(
        &self,
        within: Duration,
        what: &'static str,
        decided: impl Fn(&State) -> Option<bool>,
    ) -> Result<(), MachineError> {
        let mut status = self.status.clone();
        let waiting = status.wait_for(|status| decided(&status.state).is_some());
        let now = match tokio::time::timeout(within, waiting).await {
            Ok(Ok(status)) => status.clone(),
            Ok(Err(_)) => return Err(self.gone()),
            Err(_) => return Err(self.late(what, within)),
        };
        if decided(&now.state) == Some(true) {
            return Ok(());
        }
        Err(self.trouble(&now))
    }
}
