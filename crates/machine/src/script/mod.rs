//! Machines that somebody's start script runs, as NixOS tests make them.
//!
//! The contract is that of NixOS' own test driver: a VM's script (`run-NAME-vm`) takes more
//! arguments for QEMU and finds its directories and its VLANs' sockets in the environment (`vm`);
//! a container's script (`run-NAME-nspawn`) finds its directories there (`container`). What both
//! have in common, the process that watches over a script, is in `supervise`.

pub(crate) mod container;
pub(crate) mod journal;
mod kin;
pub(crate) mod stage;
pub(crate) mod supervise;
mod unrunnable;
mod variables;
pub(crate) mod vm;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machinist_guest::systemd::Manager;
use machinist_guest::{Command, GuestError};
use tokio::time::Instant;

use crate::error::{MachineError, chain};
use crate::machine::Machine;
use crate::path_error::{PathContext, PathError};

pub use variables::Variables;

/// What a machine with a start script is to be. Nothing in it but the variables changes while the
/// machine lives.
#[derive(Debug, Clone)]
pub struct ScriptSpec {
    /// Its name: unique in its session.
    pub name: String,
    /// What the script runs.
    pub kind: ScriptKind,
    /// What starts it: the path of a script, or any command line for `/bin/sh`.
    pub command: String,
    /// Absolute path of the machine's directory: its working directory and `TMPDIR`. Made at the
    /// first start.
    pub state_dir: PathBuf,
    /// Absolute path of the directory that is `/tmp/shared` in all machines. Made where it is not.
    pub shared_dir: PathBuf,
    /// Whether what an earlier run left in `state_dir` stays. Otherwise that is emptied when the
    /// machine is made; it always outlives the machine's own restarts.
    pub keep_state: bool,
    /// For each VLAN the directory of its VDE switch (`QEMU_VDE_SOCKET_<n>`).
    pub vlan_sockets: BTreeMap<u32, PathBuf>,
    /// Whether QEMU may open a window. Otherwise it gets `-nographic`; it can be looked at by
    /// [`crate::Machine::screenshot`] either way.
    pub display: bool,
    /// How long its agent may take to answer after a start, a restart, or after it was gone.
    pub start_within: Duration,
    /// Whether a VM is restored from a snapshot where there is one, and one is made where there is
    /// none.
    pub warm: bool,
    /// The variables that the script finds beside those of the contract.
    pub variables: Arc<Variables>,
}

/// What a start script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    /// QEMU.
    Vm,
    /// systemd-nspawn.
    Container,
}

impl ScriptSpec {
    /// Makes the directories, and empties the state directory of what an earlier run left there.
    pub(crate) fn prepare(&self) -> Result<(), PathError> {
        if !self.keep_state {
            crate::leftovers::remove_tree(&self.state_dir).path(&self.state_dir)?;
        }
        self.directories()
    }

    /// Makes the directories that are not there.
    pub(crate) fn directories(&self) -> Result<(), PathError> {
        make_private(&self.state_dir)?;
        make_private(&self.shared_dir)
    }
}

fn make_private(dir: &Path) -> Result<(), PathError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).path(dir)
}

/// See [`crate::Machine::switch_root`].
pub(crate) async fn switch_root(machine: &Machine, within: Duration) -> Result<(), MachineError> {
    let deadline = Instant::now() + within;
    let late = |what| MachineError::Late {
        machine: machine.name().to_owned(),
        what,
        within,
    };
    machine.connected(within).await?;
    let agent = machine.agent()?;
    let before = machine.status().borrow().boots;
    let manager = Manager::connect(&agent, None, deadline).await;
    let manager = manager.map_err(|error| machine.unable(chain(&error)))?;
    let there = manager
        .wait_for_unit("initrd.target", deadline, &mut |_| {})
        .await;
    there.map_err(|error| machine.unable(chain(&error)))?;
    let leave = [
        "systemctl",
        "isolate",
        "--no-block",
        "initrd-switch-root.target",
    ];
    match agent.output(&Command::argv(leave)).await {
        Ok(asked) if !asked.success() => {
            let said = String::from_utf8_lossy(&asked.stderr).trim().to_owned();
            return Err(machine.unable(format!("it does not leave its initrd: {said}")));
        }
        // It was fast: the agent is ended before it could tell.
        Ok(_) | Err(GuestError::Channel(_)) => {}
        Err(error) => return Err(machine.unable(chain(&error))),
    }
    let mut status = machine.status();
    let back = status.wait_for(|status| status.boots > before || status.state.is_over());
    match tokio::time::timeout_at(deadline, back).await {
        Ok(Ok(status)) if status.boots > before => Ok(()),
        Ok(Ok(status)) => Err(machine.trouble(&status)),
        Ok(Err(_)) => Err(machine.gone()),
        Err(_) => Err(late("its agent, from the real root,")),
    }
}
