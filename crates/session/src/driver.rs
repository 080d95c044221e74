//! A driver: one test whose machines are run by start scripts, as NixOS tests are built.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machinist_events::Level;
use serde_json::Value;

use crate::protocol::DriverInfo;
use crate::test::{self, Work};
use crate::{Cancel, Engine, OnFailure, TestResult};

/// A start script and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Scripted {
    /// The machine's name.
    pub name: String,
    /// The path of the script.
    pub command: String,
    /// What the caller's configuration says of the machine's displays, handed on to the script as
    /// it stands there. `null` where it says nothing.
    pub displays: Value,
}

/// A driver's work.
#[derive(Debug, Clone)]
pub struct DriverJob {
    /// What the test is called in events and reports.
    pub name: String,
    /// The virtual machines.
    pub vms: Vec<Scripted>,
    /// The containers.
    pub containers: Vec<Scripted>,
    /// The numbers of the VLANs.
    pub vlans: Vec<u32>,
    /// The Python script.
    pub test_script: PathBuf,
    /// Where the script runs. Absolute.
    pub cwd: PathBuf,
    /// Where what the script copies out of machines goes, and screenshots. Absolute.
    pub out_dir: PathBuf,
    /// Where the machines' state directories are (`vm-state-NAME`, and `shared-xchg` for all). Absolute.
    pub state_root: PathBuf,
    /// State directories may hold something from before. Otherwise they are removed first.
    pub keep_state: bool,
    /// After which everything is killed. Not with `interactive`.
    pub global_timeout: Option<Duration>,
    /// What to do at a failure. A script that stands still by itself (`debug`) is the better way: its
    /// names are known there.
    pub on_failure: OnFailure,
    /// A person types: Python gets our standard streams and is asked for a prompt.
    pub interactive: bool,
    /// `debug.breakpoint()` stands still instead of doing nothing.
    pub debug: bool,
    /// The command that the caller wants to be named to who is to attach at a breakpoint.
    pub debug_hook: Option<String>,
    /// People are to be told how to log in by SSH.
    pub ssh_backdoor: bool,
    /// There is a display that VMs may open windows on.
    pub display: bool,
    /// What matters less is left out of what the script writes into its log.
    pub log_level: Level,
    /// VMs are restored from snapshots, which are made where there are none.
    pub warm: bool,
    /// The variables that start scripts find beside those of the contract.
    pub variables: BTreeMap<String, String>,
}

impl DriverJob {
    /// The directory that all machines share.
    pub(crate) fn shared_dir(&self) -> PathBuf {
        self.state_root.join("shared-xchg")
    }

    /// What the script is to know.
    pub(crate) fn info(&self) -> DriverInfo {
        let displays = self.vms.iter().chain(&self.containers);
        DriverInfo {
            out_dir: self.out_dir.clone(),
            state_root: self.state_root.clone(),
            shared_dir: self.shared_dir(),
            interactive: self.interactive,
            log_level: self.log_level,
            debug: self.debug,
            debug_hook: self.debug_hook.clone(),
            ssh_backdoor: self.ssh_backdoor,
            global_timeout: self.global_timeout.map(|it| it.as_secs_f64()),
            displays: displays
                .filter(|script| !script.displays.is_null())
                .map(|script| (script.name.clone(), script.displays.clone()))
                .collect(),
        }
    }
}

/// Runs a driver's test to its end, and leaves nothing behind but the state directories. `cancel`
/// thrown: the test ends as interrupted, and cleans up. `kill` thrown: cleaning up asks nobody, it
/// kills.
pub async fn run_driver(
    engine: &Engine,
    job: DriverJob,
    cancel: &Cancel,
    kill: &Cancel,
) -> TestResult {
    test::run(engine, &Work::Driver(Arc::new(job)), cancel, kill).await
}
