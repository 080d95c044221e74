//! A container that runs: one task that hears everything and owns the process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use machinist_sys::process::{Signal, Spawn};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Attached;
use super::cgroup::Cgroup;
use super::notify::{Notice, Notifications};
use crate::backend::{Channel, Control, Happening};
use crate::environment::AgentBinary;
use crate::lifecycle::Ending;
use crate::supervised::{Supervised, describe};
use crate::words::{self, Words};

/// How long after the process the rest of its output may come.
const DRAIN: Duration = Duration::from_millis(500);

/// What goes when the container is gone, in this order.
pub(super) struct Held {
    pub(super) cgroup: Option<Cgroup>,
    pub(super) attached: Attached,
}

pub(super) struct Running {
    pub(super) child: Supervised,
    pub(super) notifications: Notifications,
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    pub(super) words: Words,
    pub(super) exe: PathBuf,
    pub(super) agent: AgentBinary,
    pub(super) may_restart: bool,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) held: Held,
    /// `__enter` of the present init.
    pub(super) entered: Option<Supervised>,
}

/// Why the loop ended.
enum End {
    Exited(io::Result<ExitStatus>),
    Killed,
    /// It restarted, and was not to.
    Restarted,
}

impl Running {
    pub(super) async fn run(mut self) {
        let end = self.attend().await;
        let ending = match end {
            End::Exited(exit) => {
                self.drain().await;
                self.judge(exit)
            }
            End::Killed | End::Restarted => {
                self.child.kill();
                // Only its being reaped by somebody else is an error, and then it is gone as well.
                drop(self.child.ended().await);
                self.drain().await;
                match end {
                    End::Restarted => Ending::ByItself,
                    _ => Ending::Killed,
                }
            }
        };
        let Self {
            child,
            entered,
            held,
            tell,
            ..
        } = self;
        // Both wait for processes or the kernel to let go.
        let release = tokio::task::spawn_blocking(move || {
            drop(entered);
            drop(child);
            drop(held.cgroup);
            drop(held.attached);
        });
        drop(release.await);
        drop(tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self) -> End {
        let mut leaders = 0;
        loop {
            tokio::select! {
                exit = self.child.ended() => return End::Exited(exit),
                notices = self.notifications.next() => {
                    for notice in notices.unwrap_or_default() {
                        match notice {
                            Notice::Ready => self.say(Happening::Ready),
                            Notice::Leader(pid) => {
                                leaders += 1;
                                if leaders > 1 {
                                    if !self.may_restart {
                                        return End::Restarted;
                                    }
                                    self.say(Happening::Reset);
                                }
                                self.bring_agent(pid);
                            }
                        }
                    }
                }
                control = self.controlled.recv() => match control {
                    Some(Control::PowerButton) => self.child.signal(Signal::TERM),
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
        match enter(&self.exe, &self.agent, leader, &self.words) {
            Ok((channel, entered)) => {
                self.entered = Some(entered);
                self.say(Happening::Channel(channel));
            }
            Err(error) => self.say(Happening::Broken(format!(
                "the agent cannot be brought into the container: {error}"
            ))),
        }
    }

    async fn drain(&mut self) {
        for reader in &mut self.readers {
            drop(tokio::time::timeout(DRAIN, reader).await);
        }
    }

    fn judge(&self, exit: io::Result<ExitStatus>) -> Ending {
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => return Ending::Fault(format!("systemd-nspawn was lost: {error}")),
        };
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

/// Starts `__enter`; returns our end of the agent's channel.
fn enter(
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
    ours.set_nonblocking(true)?;
    let ours = tokio::net::UnixStream::from_std(ours)?;
    Ok((Box::pin(ours), Supervised::new(child)?))
}
