//! A container that runs: one task that hears everything and owns the process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use machinist_guest::Socket;
use machinist_sys::process::Spawn;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::cgroup::Cgroup;
use super::end::{self, DRAIN, End};
use super::notify::{Notice, Notifications};
use super::{Launcher, Said, order};
use crate::backend::{Channel, Control, Happening};
use crate::environment::{AgentBinary, Attached};
use crate::lifecycle::Ending;
use crate::supervised::{Supervised, describe};
use crate::words::{self, Words};

/// How long the kernel may take to clear away a container that was killed.
const CLEARING: Duration = Duration::from_secs(10);

/// What goes when the container is gone, in this order.
pub(super) struct Held {
    pub(super) cgroup: Option<Cgroup>,
    pub(super) attached: Attached,
}

pub(super) struct Running {
    pub(super) child: Supervised,
    pub(super) launcher: Launcher,
    /// systemd-nspawn, once it runs. When it has ended, so has all that it started.
    pub(super) supervisor: Option<Supervisor>,
    /// The container's init, where that was announced before the launcher, which a busy host had
    /// kept waiting, could tell of its supervisor.
    pub(super) early_leader: Option<u32>,
    pub(super) notifications: Notifications,
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    pub(super) words: Words,
    pub(super) exe: PathBuf,
    pub(super) agent: AgentBinary,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) held: Held,
    /// `__enter` of the present init.
    pub(super) entered: Option<Supervised>,
}

/// systemd-nspawn, or the start script that it is under, which is the launcher's child.
pub(crate) struct Supervisor {
    pub(crate) pid: u32,
    process: OwnedFd,
}

impl Running {
    pub(super) async fn run(mut self) {
        let end = self.attend().await;
        end::end(&mut self.child, &mut self.readers).await;
        let ending = end.ending(|exit| self.judge(exit));
        let Held { cgroup, attached } = self.held;
        end::release(self.supervisor, self.entered, cgroup, attached).await;
        drop(self.tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self) -> End {
        loop {
            tokio::select! {
                // What the launcher says of a supervisor comes before what that says itself.
                biased;
                said = self.launcher.next() => match said {
                    Some(Said::Running(pid)) => {
                        self.supervisor = Supervisor::of(pid);
                        if self.supervisor.is_some() && let Some(leader) = self.early_leader.take() {
                            self.bring_agent(leader);
                        }
                    }
                    Some(Said::Restarting) => {
                        self.entered = None;
                        self.supervisor = None;
                        self.say(Happening::Reset);
                    }
                    Some(Said::Ended(status)) => return End::Ended(ExitStatus::from_raw(status)),
                    Some(Said::Failed(reason)) => return End::Failed(reason),
                    Some(Said::Isolated) => {}
                    None => return End::Lost,
                },
                notices = self.notifications.next() => {
                    for notice in notices {
                        match notice {
                            Notice::Ready => self.say(Happening::Ready),
                            Notice::Leader(pid) if self.supervisor.is_none() => {
                                self.early_leader = Some(pid);
                            }
                            Notice::Leader(pid) => self.bring_agent(pid),
                        }
                    }
                }
                control = self.controlled.recv() => match control {
                    // If it cannot be told, it is gone, and that is seen above.
                    Some(Control::PowerButton) => drop(self.launcher.send(&[order::BUTTON]).await),
                    // Nobody holds the other end any more: the machine is dropped.
                    Some(Control::Kill) | None => return End::Killed,
                },
            }
        }
    }

    fn say(&self, happening: Happening) {
        // Nobody listens to a run that is being replaced.
        drop(self.tell.send(happening));
    }

    fn bring_agent(&mut self, leader: u32) {
        // The former one is dead with its namespace.
        self.entered = None;
        let found = self
            .supervisor
            .as_ref()
            .and_then(|supervisor| supervisor.leader(leader))
            .ok_or_else(|| io::Error::other("its init is gone"));
        let entered = found.and_then(|leader| enter(&self.exe, &self.agent, leader, &self.words));
        match entered {
            Ok((channel, entered)) => {
                self.entered = Some(entered);
                self.say(Happening::Channel(channel));
            }
            Err(error) => {
                let reason = format!("the agent cannot be brought into the container: {error}");
                let tell = self.tell.clone();
                // An init that has died is the likely cause, and its end, which says more, gets a
                // moment to be seen.
                drop(tokio::spawn(async move {
                    tokio::time::sleep(DRAIN).await;
                    drop(tell.send(Happening::Broken(reason)));
                }));
            }
        }
    }

    fn judge(&self, exit: ExitStatus) -> Ending {
        if exit.code() == Some(super::watch::RESTART) {
            // It wants to restart, and may not.
            return Ending::ByItself;
        }
        let words = self.words.lines();
        // nspawn's status is the init's where that just exits; an orderly power-off is no exit.
        let init_left = words
            .iter()
            .any(|line| line.ends_with("exited successfully."));
        if exit.success() && !init_left {
            return Ending::ByItself;
        }
        let init_ended = init_left
            || words.iter().any(|line| {
                line.starts_with("Container ") && line.contains("failed with error code")
            });
        Ending::Fault(if init_ended {
            format!("its init exited (systemd-nspawn {})", describe(exit))
        } else {
            format!("systemd-nspawn {}", describe(exit))
        })
    }
}

impl Supervisor {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
        Some(Self { pid, process })
    }

    /// The process below it that is known by the number `inside` in its namespace: the container's
    /// init, which nspawn tells of so.
    pub(crate) fn leader(&self, inside: u32) -> Option<u32> {
        let mut level = vec![self.pid];
        while !level.is_empty() {
            let below: Vec<u32> = level.into_iter().flat_map(children).collect();
            let found = below.iter().find(|child| {
                let status = std::fs::read_to_string(format!("/proc/{child}/status"));
                status.is_ok_and(|status| number_inside(&status) == Some(inside))
            });
            if let Some(leader) = found {
                return Some(*leader);
            }
            level = below;
        }
        None
    }

    /// Waits until the kernel has cleared away everything in the container.
    pub(crate) fn wait_until_clear(self) {
        let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
        let limit = Timespec::try_from(CLEARING).ok();
        // After that it hangs in the kernel, and nothing that we do changes that.
        _ = rustix::event::poll(&mut polled, limit.as_ref());
    }
}

/// The children of process `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// A process's number one namespace further in than the reader's, from its /proc/PID/status.
fn number_inside(status: &str) -> Option<u32> {
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().nth(1)?.parse().ok()
}

/// Starts `__enter`; returns our end of the agent's channel.
pub(crate) fn enter(
    exe: &Path,
    agent: &AgentBinary,
    leader: u32,
    said: &Words,
) -> io::Result<(Channel, Supervised)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut spawn = Spawn::new(exe);
    let agent = spawn.pass(agent.descriptor()?);
    spawn
        .command()
        .args(["__enter", &leader.to_string(), &agent.to_string()])
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stderr(Stdio::piped());
    let mut child = spawn.start()?;
    if let Some(stderr) = child.stderr.take() {
        // It ends with the pipe, that is, with the agent.
        drop(words::words(OwnedFd::from(stderr), said.clone())?);
    }
    Ok((Box::pin(Socket::new(ours)?), Supervised::new(child)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_are_read() {
        let status = "Name:\tsystemd\nNSpid:\t31112\t4\t1\n";
        assert_eq!(number_inside(status), Some(4));
        assert_eq!(number_inside("NSpid:\t7\n"), None);
    }
}
