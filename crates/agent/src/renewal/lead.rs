//! The first moments after a restore.
//!
//! Where systemd hears of the new clock, it looks at all of its timers, and tells others of them: for an
//! emulated processor that is as much work as three commands. Nobody waits for it. So what the host asks
//! for goes before it for a while: the agent first, then the commands that it starts, then all others.

use std::fs;
use std::process;
use std::time::{Duration, Instant};

use machinist_sys::schedule::{Turn, give, take};
use rustix::process::Pid;

use super::Hold;
use crate::server::Context;

/// How long: a command that does little has ended by then, also under emulation.
const WHILE: Duration = Duration::from_millis(300);

/// The agent and its commands go before all others, until this is dropped.
pub(crate) struct Lead {
    until: Instant,
    /// It leaves with it what it changed.
    _hold: Option<Hold>,
}

impl Lead {
    /// Whether what is given to commands can be taken back from them.
    pub(super) fn may_be() -> bool {
        children().is_some()
    }

    /// Takes the lead, and what holds all others until then.
    pub(super) fn take(context: &mut Context) -> Option<Self> {
        let hold = context.hold.take();
        if !*context.may_lead.get_or_insert_with(Self::may_be) {
            context.rest = hold.map(Hold::release);
            return None;
        }
        let lead = Self {
            until: Instant::now() + WHILE,
            _hold: hold,
        };
        take(Turn::First).is_ok().then_some(lead)
    }

    /// From now on for as long as it may be.
    pub(super) fn go_on(&mut self) {
        self.until = Instant::now() + WHILE;
    }

    /// When it is to be dropped.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        for child in children().unwrap_or_default() {
            // It may just have ended.
            drop(give(child, Turn::Fair));
        }
        // Who may take the lead may give it up.
        drop(take(Turn::Fair));
    }
}

/// The processes that this one has started, and that have not been reaped.
fn children() -> Option<Vec<Pid>> {
    let own = process::id();
    let text = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).ok()?;
    let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    Some(pids.filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found() {
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        // A test runs beside others, in a thread that is not the first.
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
        // Other tests' threads come and go.
        let all =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let all: String = all.collect();
        let id = child.id().to_string();
        assert!(all.split_whitespace().any(|pid| pid == id), "{all}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children().is_some());
    }
}
