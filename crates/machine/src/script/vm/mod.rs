//! VMs that a start script runs.
//!
//! The script is given more arguments for QEMU ([`argv`]): sockets for QMP, the monitor, the root
//! shell on `hvc0`, and a port for our agent. Through the shell the agent is brought
//! (`machinist_guest::shell`); it then speaks on its port, as in a VM of our own. Where a warm start
//! is asked for, they also say where the memory is, and what the machine goes on with ([`warm`]).

mod argv;
mod begin;
mod doors;
mod run;
mod thaw;
mod warm;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::ScriptSpec;
use crate::backend::{Mode, Run};
use crate::console::Console;
use crate::environment::Environment;
use crate::error::LaunchError;

/// One machine's backend.
pub(crate) struct ScriptVm {
    pub(crate) spec: ScriptSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
}

impl ScriptVm {
    pub(crate) async fn launch(self: Arc<Self>, mode: Mode) -> Result<Run, LaunchError> {
        let began = Instant::now();
        self.spec.directories()?;
        let way = self.way().await;
        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        let link = run::Link {
            controlled,
            tell,
            began,
            may_restart: mode.may_restart,
        };
        let running = run::Running::start(self, way, link)?;
        Ok(Run {
            control,
            early: VecDeque::new(),
            happenings,
            task: tokio::spawn(running.run()),
        })
    }
}
