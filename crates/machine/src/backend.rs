//! What a machine's task and a backend say to each other.

use std::collections::VecDeque;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::Agent;
use crate::console::Console;
use crate::environment::Environment;
use crate::error::LaunchError;
use crate::lifecycle::Ending;
use crate::nspawn::Nspawn;
use crate::origin::Origin;
use crate::qemu::Qemu;
use crate::qemu::frozen::{Frozen, Tops};
use crate::qemu::spare::{Counted, Spare};
use crate::reach::Reach;
use crate::script::container::ScriptContainer;
use crate::script::vm::ScriptVm;
use crate::script::{ScriptKind, ScriptSpec};
use crate::spec::{Kind, MachineSpec};
use crate::words::Words;

/// A channel to an agent.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A channel to an agent, of whatever kind.
pub(crate) type Channel = Pin<Box<dyn Stream>>;

/// What a backend sees.
pub(crate) enum Happening {
    /// An agent listens, or will in a moment, at the other end of this.
    Channel(Channel),
    /// An agent that answers, of a machine that was restored.
    Agent(Agent),
    /// What handles can get at, from now on; before that, nothing.
    Reach(Reach),
    /// The machine's own system says that its start has finished.
    Ready,
    /// The machine restarts. Another [`Happening::Channel`] follows.
    Reset,
    /// The machine was made to stand still, or goes on.
    Standing(bool),
    /// The accelerator cannot run this machine.
    Unfit(String),
    /// The kernel gave up.
    Panicked(String),
    /// Going on makes no sense.
    Broken(String),
    /// Something to be told to the user that changes nothing.
    Note(String),
    /// The backend's process has ended, and what it held is gone. The last thing that is said.
    Ended(Ending),
}

/// What a backend is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Press the power button.
    PowerButton,
    /// End everything now.
    Kill,
}

/// A backend that runs. Its task ends after [`Happening::Ended`]; dropping this kills it.
pub(crate) struct Run {
    pub(crate) control: mpsc::UnboundedSender<Control>,
    /// What was seen before others were to hear of it: it comes first.
    pub(crate) early: VecDeque<Happening>,
    pub(crate) happenings: mpsc::UnboundedReceiver<Happening>,
    pub(crate) task: JoinHandle<()>,
}

/// What a run sees next; never, where nothing runs.
pub(crate) async fn next_of(run: Option<&mut Run>) -> Happening {
    if let Some(run) = run {
        if let Some(happening) = run.early.pop_front() {
            return happening;
        }
        if let Some(happening) = run.happenings.recv().await {
            return happening;
        }
        return Happening::Ended(Ending::Fault("its supervisor was lost".into()));
    }
    std::future::pending().await
}

/// What a machine goes back to.
#[derive(Debug, Clone)]
pub(crate) enum Earlier {
    /// A VM, as it stood still.
    Vm(Arc<Frozen>),
    /// What a container had written, as an archive.
    Container(Arc<Path>),
}

/// How a backend is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Without hardware virtualization, whatever the machine asks for.
    pub(crate) plain: bool,
    /// The machine may restart. Otherwise its restart is its end.
    pub(crate) may_restart: bool,
}

/// What can run a machine. Clones are the same.
#[derive(Clone)]
pub(crate) enum Backend {
    Qemu(Arc<Qemu>),
    Nspawn(Arc<Nspawn>),
    ScriptVm(Arc<ScriptVm>),
    ScriptContainer(Arc<ScriptContainer>),
}

impl Backend {
    /// What runs the machine that was made from `origin`.
    pub(crate) fn of(
        origin: &Origin,
        environment: &Environment,
        console: &Console,
        words: &Words,
        tops: &Tops,
    ) -> Self {
        match origin {
            Origin::Lab(spec) => of_spec(spec, environment, console, words, tops),
            Origin::Script(spec) => of_script(spec, environment, console, words),
        }
    }

    /// What `MachineStarting` calls it: the backend, and the accelerator of a VM.
    pub(crate) fn names(&self, mode: Mode) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Qemu(qemu) => ("qemu", Some(qemu.accelerator(mode.plain).name())),
            // What a script makes of it, nobody knows.
            Self::ScriptVm(_) => ("qemu", None),
            Self::Nspawn(_) | Self::ScriptContainer(_) => ("nspawn", None),
        }
    }

    /// Begins to make a spare of it, as it was then; only VMs of ours have any.
    pub(crate) fn spare(&self, mode: Mode, of: Arc<Frozen>, counted: Counted) -> Option<Spare> {
        match self {
            // What is made of another gets a name of its own first.
            Self::Qemu(qemu) if of.was.is_none() => Some(qemu.spare(mode, of, counted)),
            _ => None,
        }
    }

    /// Starts it; one of ours also with what was `earlier`, a VM by its `spare` of that. Dropped before its end, it leaves nothing
    /// that runs.
    pub(crate) async fn launch(
        self,
        mode: Mode,
        earlier: Option<Earlier>,
        spare: Option<Spare>,
    ) -> Result<Run, LaunchError> {
        match self {
            Self::Qemu(qemu) => match earlier {
                Some(Earlier::Vm(frozen)) => qemu.go_back(mode, frozen, spare).await,
                _ => qemu.launch(mode).await,
            },
            Self::Nspawn(nspawn) => match earlier {
                Some(Earlier::Container(files)) => nspawn.launch(mode, Some(&files)).await,
                _ => nspawn.launch(mode, None).await,
            },
            Self::ScriptVm(script) => script.launch(mode).await,
            Self::ScriptContainer(script) => script.launch(mode).await,
        }
    }
}

fn of_spec(
    spec: &MachineSpec,
    environment: &Environment,
    console: &Console,
    words: &Words,
    tops: &Tops,
) -> Backend {
    match spec.kind {
        Kind::Vm { .. } => Backend::Qemu(Arc::new(Qemu::new(
            spec.clone(),
            environment.clone(),
            console.clone(),
            words.clone(),
            tops.clone(),
        ))),
        Kind::Container { .. } => Backend::Nspawn(Arc::new(Nspawn {
            spec: spec.clone(),
            environment: environment.clone(),
            console: console.clone(),
            words: words.clone(),
        })),
    }
}

fn of_script(
    spec: &ScriptSpec,
    environment: &Environment,
    console: &Console,
    words: &Words,
) -> Backend {
    let (spec, environment, console) = (spec.clone(), environment.clone(), console.clone());
    match spec.kind {
        ScriptKind::Vm => Backend::ScriptVm(Arc::new(ScriptVm {
            spec,
            environment,
            console,
        })),
        ScriptKind::Container => Backend::ScriptContainer(Arc::new(ScriptContainer {
            spec,
            environment,
            console,
            words: words.clone(),
        })),
    }
}
