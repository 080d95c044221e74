//! What a machine was made from: a specification of our own, or somebody's start script.

use std::time::Duration;

use crate::script::{ScriptKind, ScriptSpec};
use crate::snapshot::Warm;
use crate::spec::{Boot, Kind, MachineSpec, Publish};

/// How long a machine of our own may go on after its agent is gone: it is on its way down, or it is
/// lost.
const SILENCE: Duration = Duration::from_secs(60);

/// What a machine was made from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Lab(Box<MachineSpec>),
    Script(Box<ScriptSpec>),
}

impl Origin {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Lab(spec) => &spec.name,
            Self::Script(spec) => &spec.name,
        }
    }

    /// How long its agent may take to answer after a start or a restart.
    pub(crate) fn start_within(&self) -> Duration {
        match self {
            Self::Lab(spec) => spec.start_within,
            Self::Script(spec) => spec.start_within,
        }
    }

    /// Whether it may be restored instead of booting.
    pub(crate) fn is_warm(&self) -> bool {
        matches!(self, Self::Lab(spec) if matches!(spec.warm, Warm::At { .. }))
    }

    /// How long it may take from the wish to start it until its agent is waited for.
    pub(crate) fn launch_within(&self) -> Duration {
        let within = self.start_within();
        // It may boot to be saved, after somebody else has tried that in vain.
        if self.is_warm() { within * 4 } else { within }
    }

    /// How long it may go on without an agent once it had one. A script's machine may leave its
    /// shell for as long as a boot takes, as it does when it switches to another root.
    pub(crate) fn silence(&self) -> Duration {
        match self {
            Self::Lab(_) => SILENCE,
            Self::Script(spec) => spec.start_within,
        }
    }

    pub(crate) fn publish(&self) -> &[Publish] {
        match self {
            Self::Lab(spec) => &spec.publish,
            Self::Script(_) => &[],
        }
    }

    pub(crate) fn is_vm(&self) -> bool {
        match self {
            Self::Lab(spec) => matches!(spec.kind, Kind::Vm { .. }),
            Self::Script(spec) => spec.kind == ScriptKind::Vm,
        }
    }

    pub(crate) fn is_container_of_script(&self) -> bool {
        matches!(self, Self::Script(spec) if spec.kind == ScriptKind::Container)
    }

    /// Whether its system is asked for the end of its start. A container of our own tells of it
    /// unasked.
    pub(crate) fn ready_by_asking(&self) -> bool {
        self.is_vm() || matches!(self, Self::Script(_))
    }

    pub(crate) fn boot(&self) -> Boot {
        match self {
            Self::Lab(spec) => spec.boot,
            Self::Script(_) => Boot::System,
        }
    }

    /// Whether a machine that goes off before its agent answered has done what it was to do: a
    /// script may boot something that has no shell for us, such as an installer.
    pub(crate) fn may_end_early(&self) -> bool {
        matches!(self, Self::Script(_))
    }
}
