//! A running lab.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machinist_events::What;
use machinist_guest::Agent;
use machinist_lab::Lab;
use machinist_machine::devices::DeviceError;
use machinist_network::VlanError;
use machinist_network::addresses::MachineNumberError;
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::content::Content;
use crate::control::Control;
use crate::directory::{self, Directory, ProcessList};
use crate::guard::{Guard, GuardError};
use crate::hub::Hub;
use crate::log::{Follower, Log};
use crate::machines::Ground;
use crate::path_error::{At, PathError};
use crate::protocol::{Fault, Status};
use crate::scripted::ScriptedError;
use crate::sharing::{TooMuch, Usage};
use crate::{Cancel, Engine, server};

/// How long machines may take to power off when a session ends.
const POWER_OFF: Duration = Duration::from_secs(20);
/// How long builds of images may take to clean up after they were told to end.
const BUILDS: Duration = Duration::from_secs(10);
/// How long connections may take to end.
const CONNECTIONS: Duration = Duration::from_secs(5);

/// What a session runs.
#[derive(Debug, Clone)]
pub struct Brief {
    /// The machines and networks.
    pub lab: Arc<Lab>,
    /// The lab file, for people.
    pub file: PathBuf,
    /// The directory that relative paths of the lab are relative to. Absolute.
    pub base: PathBuf,
    /// The test that it is for, where it is for one: only that test's machines are there, and they
    /// are killed at the end instead of being powered off.
    pub test: Option<String>,
    /// Quick, for single commands: VMs boot with the agent as their init and nothing else, and in
    /// containers commands do not wait for the system's start.
    pub agent_only: bool,
    /// Whether nothing that its machines write is seen by anybody after them: they are killed at the
    /// end, too.
    pub throwaway: bool,
    /// Whether its VMs have an uplink ([`machinist_machine::MachineSpec::uplink`]).
    pub uplink: bool,
    /// Whether its VMs leave alone the disks that keep what is written until they are ready
    /// ([`machinist_machine::DiskAccess::WriteLater`]): such a VM may be restored all the same.
    pub late_disks: bool,
    /// All timeouts are multiplied by this.
    pub timeout_factor: f64,
}

impl Brief {
    /// A lab for its own sake, with nothing special about it.
    #[must_use]
    pub fn new(lab: Arc<Lab>, file: PathBuf, base: PathBuf) -> Self {
        Self {
            lab,
            file,
            base,
            test: None,
            agent_only: false,
            throwaway: false,
            uplink: false,
            late_disks: false,
            timeout_factor: 1.0,
        }
    }
}

/// A running lab. Clones are the same session. Dropping the last without [`Session::close`] kills
/// its machines and leaves the rest to the guard.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    hub: Arc<Hub>,
    ground: Arc<Ground>,
    path: PathBuf,
    socket: PathBuf,
    processes: ProcessList,
    /// Whether machines get the time to power off at the end.
    graceful: bool,
    end: Mutex<Option<End>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After a close nobody hears it. Without one, the connections and what they have begun hold
        // the hub, and with it the machines, for as long as the session is not over.
        self.hub.over.cancel();
    }
}

/// What is needed once, at the end.
struct End {
    directory: Directory,
    guard: Guard,
    serving: JoinHandle<()>,
}

/// A session could not be made.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Its directory, or something in it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A VLAN.
    #[error(transparent)]
    Vlan(#[from] VlanError),
    /// Too many machines.
    #[error(transparent)]
    Machines(#[from] MachineNumberError),
    /// A device of the host.
    #[error("{machine}")]
    Device {
        /// The machine that asks for it.
        machine: String,
        /// Why it cannot be had.
        #[source]
        source: DeviceError,
    },
    /// Its machines need more memory than they may have.
    #[error(transparent)]
    Memory(#[from] TooMuch),
    /// A machine of a start script.
    #[error(transparent)]
    Scripted(#[from] ScriptedError),
    /// A task of ours has panicked.
    #[error("a task of the session has ended before its time")]
    Task(#[from] tokio::task::JoinError),
}

impl Session {
    /// Makes a session: its directory, its guard, its event log, its VLANs and its socket. No image
    /// is built and no machine started yet. Waits until there is memory for its machines.
    ///
    /// # Errors
    /// Its machines need more memory than there ever is; its directory, a VLAN or the socket cannot
    /// be made.
    pub async fn open(engine: &Engine, brief: Brief) -> Result<Self, SessionError> {
        let content = Content::Lab(brief);
        let usage = Self::admitted(engine, &content).await?;
        Self::with(engine, content, usage).await
    }

    /// Waits until there is memory for a session's machines.
    pub(crate) async fn admitted(engine: &Engine, content: &Content) -> Result<Usage, TooMuch> {
        let costs = content.costs(engine);
        let share = engine.0.memory.ask(costs.sum()).await?;
        Ok(Usage::new(costs, share))
    }

    /// Makes a session of whatever content.
    pub(crate) async fn with(
        engine: &Engine,
        content: Content,
        usage: Usage,
    ) -> Result<Self, SessionError> {
        let (directory, guard) = make_directory(engine, &content).await?;
        match Self::fill(engine, &content, &directory, usage) {
            Ok((inner, serving)) => {
                let end = End {
                    directory,
                    guard,
                    serving,
                };
                *inner.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                Ok(Self(Arc::new(inner)))
            }
            Err(error) => {
                // The first error is the one to tell; what cannot be removed, the guard removes.
                if directory.remove().is_ok() {
                    guard.release();
                }
                Err(error)
            }
        }
    }

    fn fill(
        engine: &Engine,
        content: &Content,
        directory: &Directory,
        usage: Usage,
    ) -> Result<(Inner, JoinHandle<()>), SessionError> {
        let log_path = directory.path().join("events.jsonl");
        let log = Log::create(&log_path, content.test(), Arc::clone(&engine.0.sink));
        let log = Arc::new(log.at("make", &log_path)?);
        log.emit(What::SessionStarted {
            session: directory.id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let (hub, ground) = content.fill(engine, directory, &log, usage)?;
        let hub = Arc::new(hub);
        let socket = directory.socket();
        let processes = ProcessList::open(directory.path())?;
        let serving = server::listen(&socket, Arc::clone(&hub))?;
        let inner = Inner {
            hub,
            ground,
            path: directory.path().to_owned(),
            socket,
            processes,
            graceful: content.graceful(),
            end: Mutex::new(None),
        };
        Ok((inner, serving))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.hub.facts.id
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    pub(crate) fn processes(&self) -> &ProcessList {
        &self.0.processes
    }

    /// Builds the images that are missing, all at once, so that it is not the first command that
    /// waits for them.
    ///
    /// # Errors
    /// An image cannot be built.
    pub async fn prepare(&self) -> Result<(), Fault> {
        let machines = self.0.hub.all();
        let all = machines.iter().map(|(_, machine)| machine.prepare());
        futures_util::future::try_join_all(all).await.map(drop)
    }

    /// Starts machines (all where `machines` is empty), side by side, and waits until their agents
    /// answer.
    ///
    /// # Errors
    /// There is no such machine, or one does not start.
    pub async fn start(&self, machines: &[String]) -> Result<(), Fault> {
        let machines = self.chosen(machines)?;
        let starts = machines.into_iter().map(|machine| machine.start(None));
        futures_util::future::try_join_all(starts).await.map(drop)
    }

    /// Waits until machines (all where `machines` is empty) are as ready as the lab file asks
    /// (`ready = ...`). Starts them if needed, side by side.
    ///
    /// # Errors
    /// There is no such machine, or one does not start.
    pub async fn ready(&self, machines: &[String]) -> Result<(), Fault> {
        let machines = self.chosen(machines)?;
        let ready = machines.iter().map(|machine| machine.ready());
        futures_util::future::try_join_all(ready).await.map(drop)
    }

    /// Copies what a VM boots to `dir`, as far as it cannot be made once more to the last bit: who
    /// has it, and the machine's snapshot, restores the machine elsewhere.
    ///
    /// # Errors
    /// There is no such machine, or it has no image, or nothing can be written there.
    pub async fn take_along(&self, machine: &str, dir: &Path) -> Result<(), Fault> {
        self.0
            .hub
            .machine(machine)?
            .take_along(dir.to_owned())
            .await
    }

    fn chosen(&self, names: &[String]) -> Result<Vec<Arc<dyn Control>>, Fault> {
        if names.is_empty() {
            let all = self.0.hub.all();
            return Ok(all.into_iter().map(|(_, machine)| machine).collect());
        }
        names.iter().map(|name| self.0.hub.machine(name)).collect()
    }

    /// The agent of a machine, which is started if needed.
    ///
    /// # Errors
    /// There is no such machine, or it does not start.
    pub async fn agent(&self, machine: &str) -> Result<Agent, Fault> {
        self.0.hub.machine(machine)?.agent().await
    }

    /// The same, without waiting until commands can count on the machine's system.
    ///
    /// # Errors
    /// As above.
    pub async fn first_agent(&self, machine: &str) -> Result<Agent, Fault> {
        self.0.hub.machine(machine)?.start(None).await
    }

    /// The process on this host that a machine runs in, while it does.
    #[must_use]
    pub fn process(&self, machine: &str) -> Option<u32> {
        self.0.hub.machine(machine).ok()?.pid()
    }

    /// How its machines are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.hub.status()
    }

    /// Its events, from the first on.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn events(&self) -> io::Result<Follower> {
        self.0.hub.log.follow(true)
    }

    /// Ends when a client has asked for the end of the session (`machinist down`).
    pub async fn down_asked(&self) {
        self.0.hub.down.cancelled().await;
    }

    /// Ends the session: powers its machines off side by side, kills what does not obey, and
    /// removes everything. `hurry` thrown: kills at once. Machines of a test are always killed.
    ///
    /// # Errors
    /// Something could not be removed. The guard has then been left to try it again.
    pub async fn close(&self, hurry: &Cancel) -> Result<(), PathError> {
        let inner = &self.0;
        let end = inner
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(end) = end else {
            return Ok(());
        };
        inner.ground.images.cancel();
        if inner.graceful && !hurry.is_cancelled() {
            tokio::select! {
                () = hurry.cancelled() => {}
                () = self.end_machines(Some(POWER_OFF)) => {}
            }
        }
        self.end_machines(None).await;
        // The process may end with us: a build that has not cleaned up would leave what it made.
        tokio::select! {
            () = hurry.cancelled() => {}
            _ = tokio::time::timeout(BUILDS, inner.ground.images.stopped()) => {}
        }
        inner.hub.over.cancel();
        // Connections know how to end; one that does not must not keep the rest from being removed.
        drop(tokio::time::timeout(CONNECTIONS, end.serving).await);
        // One of them may have started a machine again just before.
        self.end_machines(None).await;
        inner.hub.log.emit(What::SessionFinished);
        inner.hub.log.close();
        let (directory, guard) = (end.directory, end.guard);
        let removed = tokio::task::spawn_blocking(move || {
            directory.remove()?;
            guard.release();
            Ok(())
        });
        // A panic there drops the guard's pipe, and the guard does the work.
        removed.await.unwrap_or(Ok(()))
    }

    /// Powers all machines off, side by side; what still runs after `within` is killed.
    pub async fn power_off(&self, within: Duration) {
        self.end_machines(Some(within)).await;
    }

    /// Ends all machines: kills them, or powers them off within `grace`.
    pub(crate) async fn end_machines(&self, grace: Option<Duration>) {
        let machines = self.0.hub.all();
        let ends = machines.iter().map(|(_, machine)| machine.end(grace));
        futures_util::future::join_all(ends).await;
    }
}

async fn make_directory(
    engine: &Engine,
    content: &Content,
) -> Result<(Directory, Guard), SessionError> {
    let settings = engine.0.settings.clone();
    let runtime = content.runtime(&settings.runtime);
    let (file, test) = (content.file(), content.test());
    let made = tokio::task::spawn_blocking(move || {
        let path = directory::new_path(&runtime)?;
        let guard = Guard::start(&settings.exe, &path)?;
        // Where this fails half way, the guard, which is dropped, removes what there is.
        let directory = Directory::create(&path, &file, test.as_deref())?;
        Ok((directory, guard))
    });
    made.await?
}
