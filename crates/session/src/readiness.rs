//! What systemd in a machine says.

use std::time::Duration;

use machinist_guest::systemd::{Manager, SystemdError, UnitState};
use machinist_guest::{Agent, Command};
use machinist_machine::{Machine, State};
use tokio::time::{Instant, timeout_at};

use crate::chain;
use crate::protocol::Fault;

/// Until here in a system's start the sockets and directories that commands take for granted come
/// into being. NixOS tests, too, begin their shell after it.
const BASIC: &str = "basic.target";
/// How long that may take before commands are let in all the same: to see why it hangs, say.
const PATIENCE: Duration = Duration::from_secs(60);
/// For waits whose limit others keep.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Waits until commands can count on the machine's system, or until the whole of it has started.
pub(crate) async fn commands_work(machine: &Machine, agent: &Agent) {
    let mut status = machine.status();
    let started = status.wait_for(|status| status.state != State::Up);
    tokio::select! {
        // Ready, or gone, which the next command tells.
        _ = started => {}
        // A machine without systemd, or one that hangs: the command shows what it can.
        _ = tokio::time::timeout(PATIENCE, basic(agent)) => {}
    }
}

async fn basic(agent: &Agent) {
    let mut pause = FIRST_PAUSE;
    // Before systemd has planned its start the target is inactive, and no job is there for it.
    while unit(agent, BASIC, None, &mut |_| {}).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until a unit is active. `progress` is told what it is until then.
pub(crate) async fn unit(
    agent: &Agent,
    name: &str,
    user: Option<&str>,
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<(), Fault> {
    let deadline = Instant::now() + FOREVER;
    let manager = Manager::connect(agent, user, deadline)
        .await
        .map_err(|error| fault(&error))?;
    let mut told = String::new();
    let mut tell = |state: &UnitState| {
        let state = state.to_string();
        if state != told {
            told.clone_from(&state);
            progress(state);
        }
    };
    match manager.wait_for_unit(name, deadline, &mut tell).await {
        // In the words that NixOS tests know.
        Err(SystemdError::Failed { unit }) => Err(Fault::test(format!(
            "unit \"{unit}\" reached state \"failed\""
        ))),
        Err(SystemdError::Inactive { unit }) => Err(Fault::test(format!(
            "unit \"{unit}\" is inactive and there are no pending jobs"
        ))),
        other => other.map_err(|error| fault(&error)),
    }
}

fn fault(error: &SystemdError) -> Fault {
    match error {
        SystemdError::NoUser { .. } => Fault::usage(error),
        _ => Fault::machinery(chain::text(error)),
    }
}

/// The names of failed units.
pub(crate) async fn failed_units(agent: &Agent, within: Duration) -> Vec<String> {
    let deadline = Instant::now() + within;
    let asked = async {
        let manager = Manager::connect(agent, None, deadline).await?;
        manager.failed_units(deadline).await
    };
    // A system that does not answer has said enough.
    match timeout_at(deadline, asked).await {
        Ok(Ok(units)) => units,
        _ => Vec::new(),
    }
}

/// How many lines of a unit's journal are worth showing.
const JOURNAL_LINES: &str = "5";

/// The last lines of a unit's journal, as far as they can be had in time.
pub(crate) async fn journal_of(agent: &Agent, unit: &str, within: Duration) -> Vec<String> {
    let last = [
        "journalctl",
        "--quiet",
        "--no-pager",
        "--output=cat",
        "--lines",
        JOURNAL_LINES,
    ];
    let command = Command::argv(last.iter().chain(&["--unit", unit])).timeout(within);
    let Ok(output) = agent.output(&command).await else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(str::to_owned).collect()
}

/// Repeats a shell command until it succeeds.
pub(crate) async fn command(agent: &Agent, script: &str) -> Result<(), Fault> {
    let mut pause = FIRST_PAUSE;
    loop {
        let done = agent.output(&Command::shell(script)).await;
        if done
            .map_err(|error| Fault::machinery(chain::text(&error)))?
            .success()
        {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
