//! What all connections of a session act on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use machinist_events::What;
use machinist_machine::Variables;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Cancel;
use crate::checkpoints::Checkpoints;
use crate::control::{Control, Links};
use crate::directory;
use crate::log::Log;
use crate::protocol::{
    self, DriverInfo, Fault, Hello, MachineStatus, ScriptKind, ScriptReport, Status,
};

/// How the script of a test is, as far as it has told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Script {
    /// There is none, or it has not told how it ended.
    Silent,
    /// It has ended, and told how.
    Ended(Option<Box<ScriptReport>>),
}

/// A unit of a machine's system that did not become active.
#[derive(Debug, Clone)]
pub(crate) struct MissedUnit {
    pub(crate) machine: String,
    pub(crate) unit: String,
}

/// A machine that a start script runs, as a client asks for it.
#[derive(Debug, Clone)]
pub(crate) struct NewMachine {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) keep_state: bool,
    pub(crate) kind: ScriptKind,
}

/// Makes machines while a session runs.
pub(crate) type Adder = Box<dyn Fn(NewMachine) -> Result<Arc<dyn Control>, Fault> + Send + Sync>;

/// What a hub is told of its session at its start.
pub(crate) struct Facts {
    /// The session's id.
    pub(crate) id: String,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// Our own program, for command lines that people are told.
    pub(crate) exe: PathBuf,
    /// The test that it is for.
    pub(crate) test: Option<String>,
    /// The VLANs' numbers, sorted.
    pub(crate) vlans: Vec<u32>,
    /// What the scripts of a driver want to know.
    pub(crate) driver: Option<DriverInfo>,
    /// All timeouts are multiplied by it.
    pub(crate) timeout_factor: f64,
}

/// The state that a session's connections, its steps and its test share.
pub(crate) struct Hub {
    pub(crate) facts: Facts,
    pub(crate) log: Arc<Log>,
    machines: RwLock<BTreeMap<String, Arc<dyn Control>>>,
    adder: Option<Adder>,
    /// What start scripts find, where there are such.
    pub(crate) variables: Option<Arc<Variables>>,
    pub(crate) links: Option<Arc<dyn Links>>,
    pub(crate) checkpoints: Checkpoints,
    /// How many numbers of machines are given away.
    pub(crate) numbers: AtomicUsize,
    pub(crate) script: watch::Sender<Script>,
    /// True while a failed test waits to be let go on.
    pub(crate) paused: watch::Sender<bool>,
    /// Thrown when a client asks for the end of the session.
    pub(crate) down: Cancel,
    /// Thrown when the session ends: connections close, what they began is ended.
    pub(crate) over: Cancel,
    /// The unit that was last waited for in vain, for who asks why.
    pub(crate) missed_unit: Mutex<Option<MissedUnit>>,
    /// Work that outlives the request that began it.
    detached: Mutex<JoinSet<()>>,
}

impl Hub {
    pub(crate) fn new(
        facts: Facts,
        log: Arc<Log>,
        machines: BTreeMap<String, Arc<dyn Control>>,
    ) -> Self {
        Self {
            checkpoints: Checkpoints::new(facts.directory.join("checkpoints")),
            numbers: AtomicUsize::new(0),
            facts,
            log,
            machines: RwLock::new(machines),
            adder: None,
            variables: None,
            links: None,
            script: watch::Sender::new(Script::Silent),
            paused: watch::Sender::new(false),
            down: Cancel::new(),
            over: Cancel::new(),
            missed_unit: Mutex::new(None),
            detached: Mutex::new(JoinSet::new()),
        }
    }

    /// The same hub, whose clients can add machines.
    pub(crate) fn with_adder(mut self, adder: Adder) -> Self {
        self.adder = Some(adder);
        self
    }

    /// The same hub, whose start scripts find these.
    pub(crate) fn with_variables(mut self, variables: Arc<Variables>) -> Self {
        self.variables = Some(variables);
        self
    }

    /// The same hub, of whose machines so many have numbers.
    pub(crate) fn with_numbers(self, given: usize) -> Self {
        self.numbers.store(given, Ordering::Relaxed);
        self
    }

    /// Adds machines that are made of another.
    pub(crate) fn join(&self, clones: Vec<(String, Arc<dyn Control>)>) {
        let mut machines = self
            .machines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        machines.extend(clones);
    }

    /// The same hub, whose clients can pull cables.
    pub(crate) fn with_links(mut self, links: Arc<dyn Links>) -> Self {
        self.links = Some(links);
        self
    }

    pub(crate) fn hello(&self) -> Hello {
        let machines = self.all();
        Hello {
            protocol: protocol::VERSION,
            machinist: env!("CARGO_PKG_VERSION").to_owned(),
            session: self.facts.id.clone(),
            kinds: machines
                .iter()
                .map(|(name, machine)| (name.clone(), machine.kind().to_owned()))
                .collect(),
            machines: machines.into_iter().map(|(name, _)| name).collect(),
            vlans: self.facts.vlans.clone(),
            test: self.facts.test.clone(),
            driver: self.facts.driver.clone(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let machine = |(name, control): (&String, &Arc<dyn Control>)| MachineStatus {
            name: name.clone(),
            kind: control.kind().to_owned(),
            state: control.state().to_owned(),
            addresses: control.addresses(),
            published: control.published(),
        };
        Status {
            session: self.facts.id.clone(),
            test: self.facts.test.clone(),
            paused: *self.paused.borrow(),
            python: directory::python_socket(&self.facts.directory).exists(),
            machines: self
                .all()
                .iter()
                .map(|(name, control)| machine((name, control)))
                .collect(),
        }
    }

    /// All machines with their names, sorted by these.
    pub(crate) fn all(&self) -> Vec<(String, Arc<dyn Control>)> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines
            .iter()
            .map(|(name, machine)| (name.clone(), Arc::clone(machine)))
            .collect()
    }

    pub(crate) fn machine(&self, name: &str) -> Result<Arc<dyn Control>, Fault> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = machines.keys().map(String::as_str).collect();
            Fault::usage(format!(
                "there is no machine {name:?}; there are: {}",
                known.join(", ")
            ))
        })
    }

    /// Adds a machine, and says what it is called. It takes the place of one of its name that is off;
    /// where one runs it gets a name of its own.
    pub(crate) fn add(&self, mut new: NewMachine) -> Result<String, Fault> {
        let adder = self.adder.as_ref().ok_or_else(|| {
            Fault::usage("machines come from the lab here, and none can be added")
        })?;
        let mut machines = self
            .machines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let runs = |machine: &Arc<dyn Control>| !matches!(machine.state(), "off" | "failed");
        let wanted = new.name.clone();
        let mut number = 2;
        while machines.get(&new.name).is_some_and(runs) {
            new.name = format!("{wanted}-{number}");
            number += 1;
        }
        let name = new.name.clone();
        machines.insert(name.clone(), adder(new)?);
        Ok(name)
    }

    /// A timeout of the protocol as a duration. `None` is no limit.
    pub(crate) fn limit(&self, seconds: Option<f64>) -> Result<Option<Duration>, Fault> {
        seconds
            .map(|seconds| {
                // What is longer than any clock can tell is no limit that anybody could notice.
                let scaled = (seconds * self.facts.timeout_factor).min(1e9);
                Duration::try_from_secs_f64(scaled)
                    .map_err(|_| Fault::usage(format!("a timeout cannot be {seconds} seconds")))
            })
            .transpose()
    }

    /// Does something that a user waits for, and tells it as a wait for `what`. After `within` it
    /// is a failure of the test, with what `state` says about how far it has come.
    pub(crate) async fn waiting<T>(
        &self,
        machine: &str,
        what: &str,
        within: Option<Duration>,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let wait = Wait::begin(self, machine, what);
        let done = match within {
            None => work.await,
            Some(within) => match tokio::time::timeout(within, work).await {
                Ok(done) => done,
                Err(_) => Err(Fault::test(format!(
                    "{machine}: waiting for {what} timed out after {} s",
                    seconds(within)
                ))),
            },
        };
        wait.end(done.is_ok());
        done
    }

    /// Goes on with `work` after the request that began it has ended, at most until the session's
    /// end.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended ones go, so that a long session does not pile them up.
        while detached.try_join_next().is_some() {}
        detached.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// Seconds for people: no more digits than they need.
pub(crate) fn seconds(duration: Duration) -> String {
    let rounded = (duration.as_secs_f64() * 100.0).round() / 100.0;
    format!("{rounded}")
}

/// A wait that is being told. A wait that is dropped without an end is told to have failed.
pub(crate) struct Wait<'a> {
    hub: &'a Hub,
    machine: &'a str,
    id: u64,
    began: Instant,
    ended: bool,
}

impl<'a> Wait<'a> {
    pub(crate) fn begin(hub: &'a Hub, machine: &'a str, what: &str) -> Self {
        let id = hub.log.new_id();
        let what = what.to_owned();
        hub.log.emit_of(machine, What::WaitStarted { id, what });
        Self {
            hub,
            machine,
            id,
            began: Instant::now(),
            ended: false,
        }
    }

    pub(crate) fn progress(&self, state: String) {
        let id = self.id;
        let progress = What::WaitProgress { id, state };
        self.hub.log.emit_of(self.machine, progress);
    }

    pub(crate) fn end(mut self, ok: bool) {
        self.tell(ok);
    }

    fn tell(&mut self, ok: bool) {
        self.ended = true;
        let finished = What::WaitFinished {
            id: self.id,
            ok,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        self.hub.log.emit_of(self.machine, finished);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(false);
        }
    }
}
