//! Machines that start scripts run, as NixOS tests make them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machinist_lab::RunsAs;
use machinist_machine::{self as machine, Environment, Machine, ScriptSpec, Variables};
use machinist_network::AttachError;
use machinist_network::vde::LONGEST_DIRECTORY;
use thiserror::Error;

use crate::chain;
use crate::client::LONGEST_SOCKET_PATH;
use crate::control::Control;
use crate::directory;
use crate::driver::DriverJob;
use crate::hub::Adder;
use crate::machines::{Ground, Recipe, SessionMachine};
use crate::path_error::PathError;
use crate::protocol::{Fault, ScriptKind};
use crate::state::{StateDir, StatePlaces};

/// How long an agent, or a shell in its place, may take to answer. NixOS' driver waits for ever,
/// and images of its tests boot long where they are emulated.
const START: Duration = Duration::from_secs(3600);
/// Room for the names of sockets in a machine's directory, in bytes.
pub(crate) const SOCKET_NAMES: usize = "/longest-name".len();
/// The longest name: that of a host, on Linux.
const LONGEST_NAME: usize = 64;

/// A machine of a start script cannot be made.
#[derive(Debug, Error)]
pub enum ScriptedError {
    /// Its directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its name is no name.
    #[error(
        "{0:?} cannot be the name of a machine: letters, digits, dots, dashes and underscores can"
    )]
    Name(String),
    /// Its sockets would have paths that no socket can have.
    #[error(
        "{} is too long a path for the sockets of a machine, which have {LONGEST_SOCKET_PATH} \
         bytes: a shorter name or runtime directory helps", .0.display()
    )]
    TooLong(PathBuf),
    /// Its place on a VLAN.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// All of a machine that a start script runs.
#[derive(Debug)]
pub(crate) struct ScriptPlan {
    pub(crate) name: String,
    kind: ScriptKind,
    /// The script, or a command line that begins with it.
    command: String,
    state: Mutex<Arc<StateDir>>,
    places: Arc<StatePlaces>,
    /// The directories that serve the VDE protocol, by the VLANs' numbers.
    vlan_sockets: BTreeMap<u32, PathBuf>,
    /// Whether there is a display for windows.
    display: bool,
    warm: bool,
    variables: Arc<Variables>,
}

impl ScriptPlan {
    /// Whether it is to be restored from a snapshot.
    pub(crate) fn is_warm(&self) -> bool {
        self.warm && self.is_vm()
    }

    pub(crate) fn runs_as(&self) -> RunsAs {
        match self.kind {
            ScriptKind::Vm => RunsAs::Vm,
            ScriptKind::Container => RunsAs::Container,
        }
    }

    pub(crate) fn is_vm(&self) -> bool {
        self.kind == ScriptKind::Vm
    }

    /// Where it keeps its state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.path.clone()
    }

    /// Gives it another place for its state, as it is there.
    pub(crate) fn set_state_dir(&self, path: &Path) -> Result<(), PathError> {
        let state = self.places.hold(path)?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// The directory that it shares with the others.
    pub(crate) fn shared_dir(&self) -> &Path {
        self.places.shared()
    }

    /// The machine, which is off.
    pub(crate) fn make(&self, environment: Environment) -> Result<Machine, Fault> {
        let spec = ScriptSpec {
            name: self.name.clone(),
            kind: match self.kind {
                ScriptKind::Vm => machine::ScriptKind::Vm,
                ScriptKind::Container => machine::ScriptKind::Container,
            },
            command: self.command.clone(),
            state_dir: self.state_dir(),
            shared_dir: self.shared_dir().to_owned(),
            // What was there before is gone already, if it is not to be kept.
            keep_state: true,
            vlan_sockets: self.vlan_sockets.clone(),
            display: self.display,
            start_within: START,
            warm: self.is_warm(),
            variables: Arc::clone(&self.variables),
        };
        Machine::scripted(spec, environment).map_err(|error| Fault::machinery(chain::text(&error)))
    }
}

/// Makes machines of start scripts, for one session.
pub(crate) struct ScriptFarm {
    places: Arc<StatePlaces>,
    display: bool,
    warm: bool,
    variables: Arc<Variables>,
    ground: Arc<Ground>,
}

impl ScriptFarm {
    /// A farm for `job`.
    pub(crate) fn new(job: &DriverJob, ground: Arc<Ground>) -> Result<Self, ScriptedError> {
        Ok(Self {
            places: Arc::new(StatePlaces::open(&job.state_root, &job.shared_dir())?),
            display: job.display,
            warm: job.warm,
            variables: Arc::new(Variables::new(job.variables.clone())),
            ground,
        })
    }

    /// A machine, which is off. Its state directory is there.
    pub(crate) fn machine(
        &self,
        kind: ScriptKind,
        name: &str,
        command: &str,
        keep_state: bool,
    ) -> Result<Arc<dyn Control>, ScriptedError> {
        if !is_name(name) {
            return Err(ScriptedError::Name(name.to_owned()));
        }
        // Now, and not when the machine starts.
        let own = self.ground.directory.join(name);
        if own.as_os_str().len() + SOCKET_NAMES > LONGEST_SOCKET_PATH {
            return Err(ScriptedError::TooLong(own));
        }
        let plan = ScriptPlan {
            name: name.to_owned(),
            kind,
            command: command.to_owned(),
            state: Mutex::new(self.places.of(name, keep_state)?),
            places: Arc::clone(&self.places),
            vlan_sockets: match kind {
                ScriptKind::Vm => self.ground.network.open_doors(name)?,
                ScriptKind::Container => BTreeMap::new(),
            },
            display: self.display,
            warm: self.warm,
            variables: Arc::clone(&self.variables),
        };
        let recipe = Recipe::Script(plan);
        let machine = SessionMachine::new(recipe, Arc::clone(&self.ground));
        Ok(Arc::new(machine))
    }

    /// What the start scripts of all its machines find.
    pub(crate) fn variables(&self) -> Arc<Variables> {
        Arc::clone(&self.variables)
    }

    /// What adds machines while the session runs.
    pub(crate) fn into_adder(self) -> Adder {
        Box::new(move |new| {
            let made = self.machine(new.kind, &new.name, &new.command, new.keep_state);
            made.map_err(|error| match error {
                ScriptedError::Name(_) => Fault::usage(chain::text(&error)),
                error => Fault::machinery(chain::text(&error)),
            })
        })
    }
}

/// Where the session of `job` can be: `wanted`, or a place whose path leaves room for sockets. The
/// temporary directories of builds and the runtime directories of users may be deep.
pub(crate) fn short_runtime(wanted: &Path, job: &DriverJob) -> PathBuf {
    let scripts = job.vms.iter().chain(&job.containers);
    let name = scripts.map(|script| script.name.len()).max().unwrap_or(0);
    let id = directory::ID_LENGTH;
    let sockets = "/".len() + id + "/machines/".len() + name + SOCKET_NAMES;
    let doors = "/".len() + id + "/v999".len() + LONGEST_SOCKET_PATH - LONGEST_DIRECTORY;
    if wanted.as_os_str().len() + sockets.max(doors) <= LONGEST_SOCKET_PATH {
        return wanted.to_owned();
    }
    // That others cannot have made it, is seen to when it is used.
    let user = rustix::process::geteuid().as_raw();
    PathBuf::from(format!("/tmp/machinist-{user}"))
}

/// Whether a name can be one of a directory, and of a host.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(plain)
        && name.chars().any(|c| c != '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["web", "web-1", "a_b", "x.y", "1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
