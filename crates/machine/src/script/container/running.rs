//! A start script's container that runs: one task that hears everything and owns the process.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::{Control, Happening};
use crate::environment::AgentBinary;
use crate::ground::Laid;
use crate::lifecycle::Ending;
use crate::nspawn::cgroup::Cgroup;
use crate::nspawn::end::{self, End};
use crate::nspawn::notify::{Notice, Notifications};
use crate::nspawn::run::{Supervisor, children, enter};
use crate::nspawn::watch::RESTART;
use crate::nspawn::{Launcher, Said, order};
use crate::reach::Reach;
use crate::supervised::{Supervised, describe};
use crate::words::Words;

/// How long a script that is to end may take to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait at most before looking again whether the container's init has come.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a run is made of.
pub(super) struct Parts {
    pub(super) child: Supervised,
    pub(super) launcher: Launcher,
    pub(super) notifications: Notifications,
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    /// The process ids of systemd-nspawn, as the script knows them.
    pub(super) announced: mpsc::UnboundedReceiver<u32>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    pub(super) readers: Vec<JoinHandle<()>>,
    /// What our own helpers have to say.
    pub(super) words: Words,
    /// What the script and systemd-nspawn print to their standard error.
    pub(super) said: Words,
    pub(super) exe: PathBuf,
    pub(super) agent: AgentBinary,
}

/// What goes when the container is gone, in this order.
pub(super) struct Held {
    pub(super) cgroup: Option<Cgroup>,
    pub(super) ground: Arc<Laid>,
}

pub(super) struct Running {
    parts: Parts,
    held: Held,
    /// The script. When it has ended, so has all that it started.
    script: Option<Supervisor>,
    /// What was told of the script's processes before the launcher told of the script.
    early: Vec<Clue>,
    /// Look for the container's init.
    searches: JoinSet<u32>,
    init: Option<Init>,
    /// `__enter` of the present init.
    entered: Option<Supervised>,
}

/// Where the container's init is to be found. Numbers are those of the script's own namespace.
#[derive(Debug, Clone, Copy)]
enum Clue {
    /// systemd-nspawn tells of the init itself.
    Leader(u32),
    /// The script tells of systemd-nspawn.
    Nspawn(u32),
}

/// The container's init.
struct Init {
    pid: u32,
    process: OwnedFd,
}

impl Running {
    pub(super) fn new(parts: Parts, held: Held) -> Self {
        Self {
            parts,
            held,
            script: None,
            early: Vec::new(),
            searches: JoinSet::new(),
            init: None,
            entered: None,
        }
    }

    pub(super) async fn run(mut self) {
        let end = self.attend().await;
        end::end(&mut self.parts.child, &mut self.parts.readers).await;
        let ending = end.ending(|exit| self.judge(exit));
        let Held { cgroup, ground } = self.held;
        end::release(self.script, self.entered, cgroup, ground).await;
        drop(self.parts.tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self) -> End {
        loop {
            tokio::select! {
                // What the launcher says of a script comes before what that says itself.
                biased;
                said = self.parts.launcher.next() => if let Some(end) = self.told(said) {
                    return end;
                },
                notices = self.parts.notifications.next() => for notice in notices {
                    // That it is ready is asked of its init, which knows: not every script makes
                    // systemd-nspawn wait for that.
                    if let Notice::Leader(pid) = notice {
                        self.search(Clue::Leader(pid));
                    }
                },
                Some(pid) = self.parts.announced.recv() => self.search(Clue::Nspawn(pid)),
                Some(found) = self.searches.join_next() => if let Ok(init) = found {
                    self.found(init);
                },
                control = self.parts.controlled.recv() => match control {
                    Some(Control::PowerButton) => if !self.press_button().await {
                        return End::Killed;
                    },
                    // Nobody holds the other end any more: the machine is dropped.
                    Some(Control::Kill) | None => {
                        self.end_script().await;
                        return End::Killed;
                    }
                },
            }
        }
    }

    /// What follows from what the launcher says; `None` is its end.
    fn told(&mut self, said: Option<Said>) -> Option<End> {
        match said {
            Some(Said::Running(pid)) => {
                self.script = Supervisor::of(pid);
                self.say(Happening::Reach(Reach {
                    running: true,
                    pid: Some(pid),
                    ..Reach::default()
                }));
                for clue in std::mem::take(&mut self.early) {
                    self.search(clue);
                }
                None
            }
            Some(Said::Restarting) => {
                self.entered = None;
                self.init = None;
                self.script = None;
                self.searches = JoinSet::new();
                self.say(Happening::Reset);
                None
            }
            Some(Said::Ended(status)) => Some(End::Ended(ExitStatus::from_raw(status))),
            Some(Said::Failed(reason)) => Some(End::Failed(reason)),
            Some(Said::Isolated) => None,
            None => Some(End::Lost),
        }
    }

    fn say(&self, happening: Happening) {
        // Nobody listens to a run that is being replaced.
        drop(self.parts.tell.send(happening));
    }

    /// Looks for the container's init from now on.
    fn search(&mut self, clue: Clue) {
        let Some(script) = &self.script else {
            self.early.push(clue);
            return;
        };
        let (Clue::Leader(inside) | Clue::Nspawn(inside)) = clue;
        // A process that is not there any more is no clue.
        let Some(process) = script.leader(inside) else {
            return;
        };
        self.searches.spawn(async move {
            let mut pause = Duration::from_millis(1);
            loop {
                let candidates = match clue {
                    Clue::Leader(_) => vec![process],
                    Clue::Nspawn(_) => children(process),
                };
                if let Some(init) = candidates.into_iter().find(|pid| is_system(*pid)) {
                    return init;
                }
                // The kernel tells nobody when a process becomes another program.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN);
            }
        });
    }

    fn found(&mut self, pid: u32) {
        if self.init.as_ref().is_some_and(|init| init.pid == pid) {
            return;
        }
        // It may have died again; then its end is seen soon.
        self.init = Init::of(pid);
        self.entered = None;
        self.say(Happening::Reach(Reach {
            running: true,
            pid: self.script.as_ref().map(|script| script.pid),
            leader: Some(pid),
            ..Reach::default()
        }));
        let parts = &self.parts;
        match enter(&parts.exe, &parts.agent, pid, &parts.words) {
            Ok((channel, entered)) => {
                self.entered = Some(entered);
                self.say(Happening::Channel(channel));
            }
            Err(error) => self.say(Happening::Broken(format!(
                "the agent cannot be brought into the container: {error}"
            ))),
        }
    }

    /// Asks the container's init to go off; before there is one, the script to end. Where there is
    /// nobody who would hear it, says so: there is nothing yet that could go off in order.
    async fn press_button(&mut self) -> bool {
        if let Some(init) = &self.init {
            let pressed = machinist_sys::power::press_power_button(init.process.as_fd());
            if let Err(error) = pressed {
                self.say(Happening::Note(format!(
                    "the container's init cannot be signalled: {error}"
                )));
            }
            return true;
        }
        if !self.script_listens() {
            return false;
        }
        drop(self.parts.launcher.send(&[order::BUTTON]).await);
        true
    }

    /// Whether the script does something at SIGTERM. It is the first process of its namespace: for
    /// such a one the kernel drops the signal where no handler is.
    fn script_listens(&self) -> bool {
        let script = self.script.as_ref();
        script.is_some_and(|script| catches(script.pid, Signal::TERM))
    }

    /// Lets the script clean up after itself, as far as it does that in time.
    async fn end_script(&mut self) {
        if !self.script_listens() || self.parts.launcher.send(&[order::BUTTON]).await.is_err() {
            return;
        }
        let ended = async {
            while let Some(said) = self.parts.launcher.next().await {
                if matches!(said, Said::Ended(_) | Said::Failed(_)) {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(GRACE, ended).await);
    }

    fn judge(&self, exit: ExitStatus) -> Ending {
        let said = self.parts.said.lines();
        let went_off = said
            .iter()
            .any(|line| line.ends_with(" has been shut down."));
        let done = exit.success() || exit.code() == Some(RESTART);
        if done && (went_off || self.init.is_some()) {
            // With the latter status it wants to restart, and may not.
            return Ending::ByItself;
        }
        if went_off {
            // The container has done its part; what the script did afterwards is another matter.
            self.say(Happening::Note(format!(
                "its start script {} after the container had gone off",
                describe(exit)
            )));
            return Ending::ByItself;
        }
        let last = said.last();
        let last = last.map_or_else(String::new, |line| format!(": {line}"));
        // Nobody hears this of a script that was asked to end.
        let before = if done {
            " before its container's system ran"
        } else {
            ""
        };
        Ending::Fault(format!("its start script {}{before}{last}", describe(exit)))
    }
}

impl Init {
    fn of(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
        Some(Self { pid, process })
    }
}

/// Whether process `pid` has a handler for `signal`.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// Whether process `pid` is a system's manager by now. Before, it is systemd-nspawn itself, and
/// then, in NixOS' images, a shell script that activates the system: nothing is to be done in the
/// container while that goes on. Nor while systemd finds its place in the cgroups, from which it
/// cannot move what has come from outside; it listens on its socket when it has found it.
fn is_system(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    let is_systemd = program.is_ok_and(|program| {
        program.file_name().is_some_and(|name| {
            // Of a program that has been replaced, the kernel says so behind its name.
            name.to_string_lossy().trim_end_matches(" (deleted)") == "systemd"
        })
    });
    is_systemd && Path::new(&format!("/proc/{pid}/root/run/systemd/private")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_seen() {
        let us = std::process::id();
        // Rust's runtime has one for overflows of the stack.
        assert!(catches(us, Signal::SEGV));
        assert!(!catches(us, Signal::TERM));
        assert!(!catches(u32::MAX, Signal::SEGV));
    }

    #[test]
    fn we_are_no_system() {
        assert!(!is_system(std::process::id()));
        assert!(!is_system(u32::MAX));
    }
}
