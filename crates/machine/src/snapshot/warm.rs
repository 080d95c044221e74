//! How warm a machine starts, as its specification says.

use serde::{Deserialize, Serialize};

use crate::spec::{HostLine, NicSpec};

/// Whether a machine may be restored from a snapshot instead of booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warm {
    /// It boots.
    Cold {
        /// Why, as one sentence for the user, where there is something to say.
        because: Option<String>,
    },
    /// It is restored where there is a snapshot. Where there is none, one is made first.
    At {
        /// When the machine is saved.
        ready: ReadyPoint,
        /// Who the machine is while it boots to be saved; none: itself. Machines that are alike but
        /// for this share one snapshot when they have the same golden identity.
        golden: Option<Golden>,
    },
}

impl Default for Warm {
    fn default() -> Self {
        Self::Cold { because: None }
    }
}

/// When a machine that boots is ready to be saved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyPoint {
    /// Its agent answers.
    Agent,
    /// Its agent answers, and its own system has finished its start.
    #[default]
    System,
    /// This unit is active.
    Unit(String),
    /// This shell command succeeds.
    Command(String),
}

impl std::fmt::Display for ReadyPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::System => f.write_str("system"),
            Self::Unit(unit) => write!(f, "unit:{unit}"),
            Self::Command(command) => write!(f, "command:{command}"),
        }
    }
}

/// Who a machine is while it boots to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Golden {
    /// Its name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub machine_id: String,
    /// Its network interfaces: as many as the machine's, with the same names, in the same order.
    pub nics: Vec<NicSpec>,
    /// The addresses and names that it knows beside its own loopback.
    pub hosts: Vec<HostLine>,
    /// How many machines of the lab begin with it. Where they are many, each is kept small.
    pub shared_by: usize,
}
