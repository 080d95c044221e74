//! A builder's machine: from its configuration to a Nix daemon that answers, and back.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machinist_events::{Event, What};
use machinist_guest::{Agent, Command, GuestError};
use machinist_lab::ContainerLimits;
use machinist_session::{Brief, Cancel, Engine, EventSink, Session, Settings, Snapshots};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::log::Log;
use super::{predecessor, settle};
use crate::config::{Accel, Config, Kind};
use crate::host_store::{Beginning, HostStore};
use crate::state::{State, private_file};
use crate::{definition, lab_file};

/// How long a start may take, the build of an image included.
const START: Duration = Duration::from_secs(30 * 60);
/// How long Nix's daemon may take once the agent answers. Emulated machines are slow.
const SETTLE: Duration = Duration::from_secs(300);
/// How long a machine may take to stop in order.
const STOP: Duration = Duration::from_secs(90);
/// How long it may take to let go of the host's store when it is to stop.
const END: Duration = Duration::from_secs(60);
/// How long its system may still be starting when it is to stop.
const BEGUN: Duration = Duration::from_secs(30);

/// A machine that runs, with a Nix daemon that answers.
pub(super) struct Running {
    session: Session,
    agent: Agent,
    host_store: Option<HostStore>,
}

/// What a start needs.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) config: Arc<Config>,
    pub(super) state: State,
    /// Our own program.
    pub(super) exe: PathBuf,
    pub(super) log: Log,
    /// What is going on, for those who wait.
    pub(super) note: watch::Sender<String>,
}

impl Starter {
    /// Starts the machine. The error is for people.
    pub(super) async fn start(&self, cancel: &Cancel) -> Result<Running, String> {
        let began = Instant::now();
        let started = self.boot(cancel).await;
        match &started {
            Ok(_) => self
                .log
                .say(&format!("up after {:.1} s", began.elapsed().as_secs_f64())),
            Err(error) => self.log.say(&format!("did not start: {error}")),
        }
        started
    }

    async fn boot(&self, cancel: &Cancel) -> Result<Running, String> {
        let text = lab_file::text(&self.config, &self.state);
        let lab = lab_file::lab(&text).map_err(|error| error.plain())?;
        let path = self.state.lab();
        self.state.write(&path, text.as_bytes()).map_err(chain)?;
        let sink = self.sink().map_err(chain)?;
        let engine = Engine::open(self.settings(), sink).await.map_err(chain)?;
        self.after_the_last().await?;
        self.system_ready().await?;
        let brief = Brief {
            uplink: self.config.network,
            late_disks: self.config.system.is_none(),
            ..Brief::new(Arc::new(lab), path, self.state.path().to_owned())
        };
        let session = Session::open(&engine, brief).await.map_err(chain)?;
        // From here on what was begun has to be ended.
        let noted = self.state.set_session(session.path()).map_err(chain);
        let settled = tokio::select! {
            settled = timeout(START, self.settled(&session)) => settled.unwrap_or_else(|_| {
                Err(format!("it took longer than {} s", START.as_secs()))
            }),
            () = cancel.cancelled() => Err("it was stopped".into()),
        };
        match noted.and(settled) {
            Ok((agent, host_store)) => Ok(Running {
                session,
                agent,
                host_store,
            }),
            Err(error) => {
                drop(session.close(&thrown()).await);
                Err(error)
            }
        }
    }

    /// Makes a system of the user's ready to boot.
    async fn system_ready(&self) -> Result<(), String> {
        let Some(system) = self.config.system.clone() else {
            return Ok(());
        };
        self.note.send_replace("preparing its system".into());
        let (state, config) = (self.state.clone(), Arc::clone(&self.config));
        let new = self.state.proven().is_none();
        let ready = tokio::task::spawn_blocking(move || system.ready(&state, &config, new));
        let ready = ready.await.map_err(chain)?;
        ready.map_err(|error| format!("its system: {}", chain(error)))
    }

    /// Waits until nothing is left of a former machine, whose service may have been killed a moment
    /// ago: two would have one store.
    async fn after_the_last(&self) -> Result<(), String> {
        let Some(session) = self.state.session() else {
            return Ok(());
        };
        let runtime = self.config.places.runtime.clone();
        let gone = tokio::task::spawn_blocking(move || predecessor::wait(&runtime, &session));
        let gone = gone.await.map_err(chain)?;
        gone.map_err(|error| format!("its former machine is not gone: {error}"))
    }

    async fn settled(&self, session: &Session) -> Result<(Agent, Option<HostStore>), String> {
        session.prepare().await.map_err(chain)?;
        self.note.send_replace("booting".into());
        let agent = match self.config.kind {
            // Nothing that its Nix needs comes with the start of its system.
            Kind::Container => session.first_agent(&self.config.name).await,
            Kind::Vm => session.agent(&self.config.name).await,
        };
        let agent = agent.map_err(chain)?;
        self.note.send_replace("waiting for its Nix daemon".into());
        if self.config.system.is_some() {
            // Its settings are there when its daemon is.
            self.daemon_there(&agent).await?;
        }
        let settled = settle::settle(&agent, &self.config, self.state.proven().is_none()).await;
        let proven = settled.map_err(|error| format!("its settings: {}", chain(error)))?;
        self.state.set_proven(&proven).map_err(chain)?;
        self.daemon_there(&agent).await?;
        let host_store = self.host_store(session, &agent).await?;
        Ok((agent, host_store))
    }

    /// Waits until Nix's daemon listens. No trial of it: that would be a client of the daemon's, which
    /// opens the store for each.
    async fn daemon_there(&self, agent: &Agent) -> Result<(), String> {
        let deadline = Instant::now() + SETTLE;
        let daemon = Path::new(self.config.daemon());
        let waited = agent.wait_file(daemon, deadline).await;
        let failed = |error: GuestError| format!("its Nix daemon did not start: {}", chain(error));
        waited.map_err(failed)
    }

    /// What the machine may see of the host's store, or knows from a time when it might.
    async fn host_store(
        &self,
        session: &Session,
        agent: &Agent,
    ) -> Result<Option<HostStore>, String> {
        let list = self.state.host_store();
        if self.config.host_store.is_none() && !list.exists() {
            return Ok(None);
        }
        let begun = HostStore::begin(Beginning {
            nix: self.config.host_store.as_deref(),
            list,
            kind: self.config.kind,
            launcher: session.process(&self.config.name),
            agent: agent.clone(),
            log: self.log.clone(),
        });
        begun
            .await
            .map_err(|error| format!("the host's store: {}", chain(error)))
    }

    fn settings(&self) -> Settings {
        let places = &self.config.places;
        let snapshots = places.snapshots();
        Settings {
            runtime: places.runtime.clone(),
            exe: self.exe.clone(),
            images: places.images.clone(),
            search: places.search.clone().into(),
            accel: match self.config.accel {
                Accel::Auto => machinist_session::Accel::Auto,
                Accel::Kvm => machinist_session::Accel::Kvm,
                Accel::Tcg => machinist_session::Accel::Tcg,
            },
            cdi: Vec::new(),
            containers: ContainerLimits::default(),
            warm: !self.config.cold && self.config.system.is_none(),
            snapshots: Snapshots {
                directory: snapshots.directory,
                sources: Vec::new(),
                limit: snapshots.limit,
            },
            memory_budget: u64::MAX,
            starts: NonZero::<usize>::MIN,
        }
    }

    /// Writes what the machine's console shows, and tells what takes long.
    fn sink(&self) -> Result<EventSink, crate::PathError> {
        use crate::path_error::At;
        let path = self.state.console();
        let file = private_file().create(true).truncate(true).open(&path);
        let console: Mutex<File> = Mutex::new(file.at("open", &path)?);
        let (log, note) = (self.log.clone(), self.note.clone());
        Ok(Arc::new(move |event: &Event| match &event.what {
            What::Console { line } => {
                let mut console = console.lock().unwrap_or_else(PoisonError::into_inner);
                // A full disk must not stop builds.
                drop(writeln!(console, "{line}"));
            }
            What::ImageStarted { image } => {
                log.say(&format!("building its image, {image}"));
                note.send_replace("building its image".into());
            }
            What::ImageStep { step, .. } => {
                note.send_replace(format!("building its image: {step}"));
            }
            What::MachineRestored { seconds } => {
                log.say(&format!("restored from its snapshot in {seconds:.2} s"));
            }
            What::SnapshotSaved { .. } => log.say("its snapshot was saved"),
            What::SnapshotDiscarded { reason } => {
                log.say(&format!("its snapshot was no good: {reason}"));
            }
            What::MachineCold { reason } => log.say(&format!("it boots: {reason}")),
            What::Warning { text } => log.say(&format!("warning: {text}")),
            What::AccelFallback { reason } => log.say(&format!("warning: {reason}")),
            What::MachineFailed { reason, .. } => log.say(&format!("its machine: {reason}")),
            _ => {}
        }))
    }
}

impl Running {
    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn host_store(&self) -> Option<&HostStore> {
        self.host_store.as_ref()
    }

    /// Stops it in order, and leaves nothing of it but its store.
    pub(super) async fn stop(self, log: &Log) {
        if let Some(host_store) = &self.host_store {
            // A machine that hangs is stopped all the same.
            drop(timeout(END, host_store.end()).await);
        }
        // systemd forgets an order to power off that comes before it knows what it is to start.
        let begun = Command::argv(["systemctl", "is-system-running", "--wait"]).clear_env();
        let path = ("PATH", definition::PATH);
        drop(
            self.agent
                .output(&begun.env(path.0, path.1).timeout(BEGUN))
                .await,
        );
        self.session.power_off(STOP).await;
        if let Err(error) = self.session.close(&Cancel::new()).await {
            log.say(&format!("warning: {}", chain(error)));
        }
    }
}

fn thrown() -> Cancel {
    let cancel = Cancel::new();
    cancel.cancel();
    cancel
}

/// The whole chain of an error's causes, in one line.
pub(crate) fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error says the same as its source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
