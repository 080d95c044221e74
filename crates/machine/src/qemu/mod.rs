//! VMs, run by QEMU.
//!
//! QEMU is our child. It speaks QMP on a socket pair, writes the serial console to its standard
//! output, and listens on a socket of ours for the agent's port.

pub(crate) mod argv;
mod cmdline;
mod disks;
pub(crate) mod frozen;
mod golden;
mod key;
pub(crate) mod panic;
mod plan;
pub(crate) mod port;
pub(crate) mod qmp;
mod run;
pub(crate) mod save;
pub(crate) mod spare;
mod uplink;
mod vitality;
mod warm;

pub(crate) use argv::AGENT_PORT;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use machinist_sys::process::{Child, Spawn};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backend::{Happening, Mode, Run};
use crate::console::Console;
use crate::environment::{Attached, Environment};
use crate::error::LaunchError;
use crate::path_error::PathContext;
use crate::reach::{ConsoleInput, Reach};
use crate::snapshot::{Saved, Warm};
use crate::spec::{Kind, MachineSpec};
use crate::supervised::Supervised;
use crate::tunables;
use crate::verdict::{Accel, Accelerator};
use crate::words::{self, Words};

use argv::Memory;
use frozen::{Frozen, Tops};
use port::AgentPort;
use spare::Apart;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// So many machines of one snapshot are many.
const MANY: usize = 8;

/// The socket of the agent's port, in the machine's directory.
const AGENT_SOCKET: &str = "agent";

/// The tag of the volume with this number.
pub(crate) fn volume_tag(number: usize) -> String {
    format!("volume{number}")
}

/// One machine's backend.
pub(crate) struct Qemu {
    pub(crate) spec: MachineSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
    pub(crate) words: Words,
    /// Where its writable disks lie.
    pub(crate) tops: Tops,
    /// Another console that gets all that this one gets.
    record: Option<Console>,
    /// The snapshot that it was last restored from: its disks may stand on it.
    stands_on: Mutex<Option<Saved>>,
    /// Counts spares: no two have the same name for a socket.
    spares: AtomicU64,
}

/// How a VM begins.
#[derive(Debug, Clone)]
pub(crate) enum Beginning {
    /// It boots.
    Boot,
    /// It boots to be saved in this directory: there are its disks, and nobody is on its networks.
    Golden(PathBuf),
    /// It goes on from where another stood still.
    Frozen(Arc<Frozen>),
    /// The same, as a spare: beside the one that runs, whose place it may take later.
    Spare(Arc<Frozen>),
}

impl Beginning {
    fn frozen(&self) -> Option<&Frozen> {
        match self {
            Self::Frozen(frozen) | Self::Spare(frozen) => Some(frozen),
            Self::Boot | Self::Golden(_) => None,
        }
    }
}

/// One message for each piece of console output, with the panic that it tells of.
type Signs = mpsc::UnboundedSender<Option<String>>;

/// A QEMU that has just begun, and what belongs to it. Dropping it ends both.
struct Spawned {
    child: Child,
    port: AgentPort,
    /// QMP.
    control_socket: UnixStream,
    accelerator: Accelerator,
    attached: Arc<Mutex<Option<Attached>>>,
    /// What a spare has for itself.
    apart: Option<Apart>,
    /// Somebody is at the other end of the agent's port already.
    restored: bool,
    /// What its memory is mapped from, where that is a file.
    memory: Option<Arc<File>>,
}

impl Qemu {
    pub(crate) fn new(
        spec: MachineSpec,
        environment: Environment,
        console: Console,
        words: Words,
        tops: Tops,
    ) -> Self {
        Self {
            spec,
            environment,
            console,
            words,
            tops,
            record: None,
            stands_on: Mutex::default(),
            spares: AtomicU64::default(),
        }
    }

    fn wish(&self) -> Accel {
        match &self.spec.kind {
            Kind::Vm { accel, .. } => *accel,
            Kind::Container { .. } => Accel::Auto,
        }
    }

    /// What the next launch will run on.
    pub(crate) fn accelerator(&self, plain: bool) -> Accelerator {
        // Where the wish cannot be fulfilled, the launch says so.
        self.choose(plain).unwrap_or(Accelerator::Kvm)
    }

    fn choose(&self, plain: bool) -> Result<Accelerator, LaunchError> {
        let wish = if plain { Accel::Tcg } else { self.wish() };
        let chosen = self.environment.verdicts.choose(wish);
        chosen.map_err(LaunchError::Unable)
    }

    /// Starts it. Returns when QEMU runs; nothing has booted by then.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        mode: Mode,
        beginning: Beginning,
    ) -> Result<Run, LaunchError> {
        // Disks and ports are made there, and a disk may be slow.
        let this = Arc::clone(self);
        let spawned = tokio::task::spawn_blocking(move || this.spawn(mode, &beginning))
            .await
            .map_err(|error| spawn_failed(error.into()))??;
        self.supervise(spawned, None).map_err(spawn_failed)
    }

    /// Makes what QEMU needs, and starts it. Blocks.
    fn spawn(&self, mode: Mode, beginning: &Beginning) -> Result<Spawned, LaunchError> {
        let accelerator = self.choose(mode.plain)?;
        let dir = &self.environment.dir;

        // Whatever fails from here on, the ports that were opened are let go.
        let joins = matches!(beginning, Beginning::Boot | Beginning::Frozen(_));
        let attached = joins.then(|| Attached::new(&self.environment, &self.spec.name));
        let apart = match beginning {
            Beginning::Spare(frozen) => Some(self.set_apart(frozen)?),
            _ => None,
        };
        let attached = match &apart {
            Some(apart) => apart.attached(),
            None => Arc::new(Mutex::new(attached)),
        };
        let socket = apart.as_ref().map_or(AGENT_SOCKET, Apart::socket);
        let (port, listener) = AgentPort::new(dir, socket)?;
        let (ours, theirs) = UnixStream::pair().path(dir)?;
        let mut spawn = Spawn::new(host_program(self));
        let mut plan = self.plan(accelerator, mode, beginning, apart.as_ref())?;
        let memory = match beginning {
            Beginning::Boot => None,
            Beginning::Golden(_) => {
                let memory = golden::empty_memory(plan.memory).map_err(spawn_failed)?;
                let number = spawn.pass(memory.try_clone().map_err(spawn_failed)?.into());
                plan.memory_from = Memory::Shared(format!("/proc/self/fd/{number}").into());
                Some(memory)
            }
            Beginning::Frozen(frozen) | Beginning::Spare(frozen) => {
                Some(File::open(&frozen.memory).path(&frozen.memory)?)
            }
        };
        plan.qmp = spawn.pass(theirs.into());
        plan.agent = spawn.pass(listener.into());
        if self.is_small(beginning) {
            spawn.small_pages();
        } else if accelerator == Accelerator::Tcg {
            spawn.command().env(tunables::NAME, tunables::value(None));
        }
        spawn
            .command()
            .args(plan.argv())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Spawned {
            child: spawn.start().map_err(spawn_failed)?,
            port,
            control_socket: ours,
            accelerator,
            attached,
            apart,
            restored: beginning.frozen().is_some(),
            memory: memory.map(Arc::new),
        })
    }

    /// Whether it is one of so many that begin alike that what each takes up, and the time in which the
    /// host clears large pages for all of them, count more than how fast each is later.
    fn is_small(&self, beginning: &Beginning) -> bool {
        let golden = match &self.spec.warm {
            Warm::At { golden, .. } => golden.as_ref(),
            Warm::Cold { .. } => None,
        };
        beginning.frozen().is_some() && golden.is_some_and(|it| it.shared_by >= MANY)
    }

    fn supervise(&self, spawned: Spawned, apart: Option<&Apart>) -> std::io::Result<Run> {
        let Spawned {
            mut child,
            mut port,
            control_socket,
            accelerator,
            attached,
            restored,
            memory,
            ..
        } = spawned;
        control_socket.set_nonblocking(true)?;
        let control_socket = tokio::net::UnixStream::from_std(control_socket)?;
        let (seen, signs) = mpsc::unbounded_channel();
        let readers = self.read(&mut child, seen, apart)?;
        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        if accelerator == Accelerator::Tcg
            && let Some(note) = self.environment.verdicts.shut(self.wish())
        {
            // The receiver is in our hand.
            drop(tell.send(Happening::Note(note)));
        }
        let (qmp, events) = qmp::Qmp::start(control_socket);
        // The receiver is in our hand.
        drop(tell.send(Happening::Reach(Reach {
            memory,
            ..reach(&mut child, &qmp)?
        })));
        if restored && let Some(stream) = port.take()? {
            // It listens as soon as it goes on: the news of its port opening may come too early for
            // anybody to hear.
            drop(tell.send(Happening::Channel(Box::pin(stream))));
        }
        // What is restored has run on it before.
        let tried = restored || accelerator != Accelerator::Kvm;
        let trial = (!tried).then(|| run::Trial {
            verdicts: self.environment.verdicts.clone(),
            strict: self.wish() == Accel::Kvm,
            condemned: self.environment.verdicts.watch(),
            vitality: vitality::Vitality::default(),
            signs: 0,
        });
        let running = run::Running {
            child: Supervised::new(child)?,
            qmp,
            events,
            console_signs: signs,
            port,
            controlled,
            tell,
            words: self.words.clone(),
            readers,
            trial,
            went_off: false,
            attached,
        };
        Ok(Run {
            control,
            early: VecDeque::new(),
            happenings,
            task: tokio::spawn(running.run()),
        })
    }

    /// Reads what QEMU prints: the guest's console, of which signs of life go to `seen`, and its own
    /// words.
    fn read(
        &self,
        child: &mut Child,
        seen: Signs,
        apart: Option<&Apart>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let wanted = || spare::is_wanted(apart);
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let (console, record) = (self.console.clone(), self.record.clone());
            let mut finder = panic::PanicFinder::default();
            let stdout = OwnedFd::from(stdout);
            readers.push(words::drain_if(wanted(), stdout, move |bytes| {
                console.feed(bytes);
                if let Some(record) = &record {
                    record.feed(bytes);
                }
                // Nobody looks at signs of life any more when the run is over.
                drop(seen.send(finder.feed(bytes)));
            })?);
        }
        if let Some(stderr) = child.stderr.take() {
            let stderr = OwnedFd::from(stderr);
            readers.push(words::words_if(wanted(), stderr, self.words.clone())?);
        }
        Ok(readers)
    }
}

/// What of a QEMU that has just begun handles can get at.
fn reach(child: &mut Child, qmp: &qmp::Qmp) -> std::io::Result<Reach> {
    let console = child.stdin.take().map(OwnedFd::from);
    let console = console.map(pipe::Sender::from_owned_fd).transpose()?;
    Ok(Reach {
        running: true,
        pid: Some(child.pid()),
        qmp: Some(qmp.clone()),
        console: console.map(ConsoleInput::new),
        ..Reach::default()
    })
}

/// Where QEMU is, as far as that can be told.
fn host_program(qemu: &Qemu) -> PathBuf {
    std::env::split_paths(&qemu.environment.search)
        .map(|dir| dir.join(PROGRAM))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PROGRAM.into())
}

/// The BIOS that belongs to this QEMU, if it is where it usually is: beside it, as in Nix' store, or
/// where distributions put it.
fn firmware(program: &Path) -> Option<PathBuf> {
    let program = std::fs::canonicalize(program).ok();
    let beside = program
        .as_deref()
        .and_then(|program| Some(program.parent()?.parent()?.join("share")));
    let shares = beside.into_iter().chain(["/usr/share".into()]);
    let files = shares.flat_map(|share| {
        ["qemu", "seabios"].map(|package| share.join(package).join("bios-256k.bin"))
    });
    files.into_iter().find(|path| path.is_file())
}

fn spawn_failed(source: std::io::Error) -> LaunchError {
    LaunchError::Spawn {
        program: PROGRAM.into(),
        source,
    }
}
