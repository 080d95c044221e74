//! A VM that runs: one task that hears everything and owns the process.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machinist_sys::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::argv::AGENT_DEVICE;
use super::port::AgentPort;
use super::qmp::{Event, PowerDown, Qmp, QueryStatus};
use super::vitality::{self, Vitality};
use crate::backend::{Control, Happening};
use crate::environment::Attached;
use crate::lifecycle::Ending;
use crate::supervised::{Supervised, describe};
use crate::verdict::Verdicts;
use crate::words::Words;

/// How long after the process the rest of its output may come.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a kernel may go on printing after it said that it panics.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long QEMU may take to answer. Meanwhile nobody else is heard, not even who wants it killed.
const ANSWER: Duration = Duration::from_secs(2);

/// KVM on trial.
pub(super) struct Trial {
    pub(super) verdicts: Verdicts,
    /// The user insists on KVM: there is no fallback.
    pub(super) strict: bool,
    pub(super) condemned: watch::Receiver<Option<String>>,
    pub(super) vitality: Vitality,
    pub(super) signs: u64,
}

pub(super) struct Running {
    pub(super) child: Supervised,
    pub(super) qmp: Qmp,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    /// One message for each piece of console output, with the panic that it tells of.
    pub(super) console_signs: mpsc::UnboundedReceiver<Option<String>>,
    pub(super) port: AgentPort,
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    pub(super) words: Words,
    pub(super) readers: Vec<JoinHandle<()>>,
    /// There until the guest has shown that it runs, if that is in doubt.
    pub(super) trial: Option<Trial>,
    /// The guest said that it goes off.
    pub(super) went_off: bool,
    /// Its places on the network. A spare gets them later.
    pub(super) attached: Arc<Mutex<Option<Attached>>>,
}

enum End {
    Exited(io::Result<ExitStatus>),
    Killed,
}

impl Running {
    pub(super) async fn run(mut self) {
        let end = self.attend().await;
        let ending = match end {
            End::Exited(exit) => {
                self.drain().await;
                if let Ok(exit) = &exit {
                    self.blame_kvm(*exit);
                }
                self.judge(exit)
            }
            End::Killed => {
                self.child.kill();
                // Only its being reaped by somebody else is an error, and then it is gone as well.
                drop(self.child.ended().await);
                self.drain().await;
                Ending::Killed
            }
        };
        let Self {
            attached,
            child,
            tell,
            ..
        } = self;
        let release = tokio::task::spawn_blocking(move || {
            drop(child);
            let attached = attached
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(attached);
        });
        drop(release.await);
        drop(tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self) -> End {
        let mut look = tokio::time::interval(vitality::INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let on_trial = self.trial.is_some();
            tokio::select! {
                exit = self.child.ended() => return End::Exited(exit),
                Some(event) = self.events.recv() => self.heard(event).await,
                Some(panic) = self.console_signs.recv() => self.printed(panic).await,
                reason = condemned(self.trial.as_mut()) => self.unfit(reason),
                () = tick(&mut look, on_trial) => self.look(),
                control = self.controlled.recv() => match control {
                    Some(Control::PowerButton) => self.press_button(),
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

    async fn heard(&mut self, event: Event) {
        match event {
            Event::PortChange { id, open } if id == AGENT_DEVICE => self.port_changed(open),
            Event::Shutdown { guest, .. } => self.went_off |= guest,
            Event::Reset => {
                self.renew_port();
                self.say(Happening::Reset);
            }
            Event::GuestPanicked => self.printed(Some("kernel panic".into())).await,
            Event::Stop => {
                self.say(Happening::Standing(true));
                self.stopped().await;
            }
            Event::Resume => self.say(Happening::Standing(false)),
            Event::PortChange { .. } | Event::Other => {}
        }
    }

    fn port_changed(&mut self, open: bool) {
        if !open {
            return self.renew_port();
        }
        // The agent runs: what runs an agent runs machines.
        self.trial = None;
        match self.port.take() {
            Ok(Some(stream)) => self.say(Happening::Channel(Box::pin(stream))),
            Ok(None) => {}
            Err(error) => self.say(Happening::Broken(format!(
                "the agent's port cannot be used: {error}"
            ))),
        }
    }

    fn renew_port(&mut self) {
        if let Err(error) = self.port.renew() {
            self.say(Happening::Broken(format!(
                "the agent's port cannot be connected again: {error}"
            )));
        }
    }

    async fn printed(&mut self, panic: Option<String>) {
        if let Some(trial) = &mut self.trial {
            trial.signs += 1;
        }
        let Some(mut reason) = panic else { return };
        // The panic device is faster than the serial line: the kernel's own words may be on their
        // way, and so is what it prints after them.
        let deadline = tokio::time::Instant::now() + LAST_WORDS;
        while let Ok(Some(said)) =
            tokio::time::timeout_at(deadline, self.console_signs.recv()).await
        {
            reason = said.unwrap_or(reason);
        }
        self.say(Happening::Panicked(reason));
    }

    /// The virtual processors stand still, and we did not ask for that.
    async fn stopped(&mut self) {
        let asked = tokio::time::timeout(ANSWER, self.qmp.perform(&QueryStatus {}));
        let Ok(Ok(status)) = asked.await else {
            return;
        };
        if status.status != "internal-error" {
            return;
        }
        let reason = "QEMU stopped the machine with an internal error".to_owned();
        if self.trial.is_some() {
            self.unfit(reason);
        } else {
            self.say(Happening::Broken(reason));
        }
    }

    /// Asks the kernel, not QEMU: one that hangs in KVM answers nobody.
    fn look(&mut self) {
        let burnt = vitality::processor_time(self.child.pid());
        let (Some(trial), Some(burnt)) = (&mut self.trial, burnt) else {
            return;
        };
        if let Some(silent) = trial.vitality.look(trial.signs, burnt) {
            self.unfit(format!(
                "no sign of life while it used {} s of processor time",
                silent.as_secs()
            ));
        }
    }

    fn unfit(&mut self, reason: String) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        trial.verdicts.condemn_kvm(&reason);
        let reason = trial.verdicts.explain(&reason);
        self.say(if trial.strict {
            Happening::Broken(format!("KVM does not work here: {reason}"))
        } else {
            Happening::Unfit(reason)
        });
    }

    fn press_button(&self) {
        let qmp = self.qmp.clone();
        // An error means that it goes off already.
        drop(tokio::spawn(
            async move { qmp.perform(&PowerDown {}).await },
        ));
    }

    async fn drain(&mut self) {
        for reader in &mut self.readers {
            drop(tokio::time::timeout(DRAIN, reader).await);
        }
        while let Ok(event) = self.events.try_recv() {
            if let Event::Shutdown { guest, .. } = event {
                self.went_off |= guest;
            }
        }
    }

    /// A QEMU that falls over KVM before the guest shows any life is a failed trial, too. One that
    /// ends for another reason (a disk that cannot be opened, a kill) is not.
    fn blame_kvm(&mut self, exit: ExitStatus) {
        use std::os::unix::process::ExitStatusExt;
        let last = self.words.lines().pop().unwrap_or_default();
        let fell = exit
            .signal()
            .and_then(Signal::from_named_raw)
            .is_some_and(|signal| {
                [
                    Signal::ABORT,
                    Signal::SEGV,
                    Signal::ILL,
                    Signal::BUS,
                    Signal::FPE,
                ]
                .contains(&signal)
            });
        if fell || (!exit.success() && speaks_of_kvm(&last)) {
            self.unfit(format!("QEMU {}: {last}", describe(exit)));
        }
    }

    fn judge(&self, exit: io::Result<ExitStatus>) -> Ending {
        match exit {
            Ok(exit) if exit.success() && self.went_off => Ending::ByItself,
            Ok(exit) => {
                let last = self.words.lines().pop();
                let last = last.map_or_else(String::new, |line| format!(": {line}"));
                let reason = format!("QEMU {}{last}", describe(exit));
                if was_killed(exit) {
                    Ending::KilledByOthers(reason)
                } else {
                    Ending::Fault(reason)
                }
            }
            Err(error) => Ending::Fault(format!("QEMU was lost: {error}")),
        }
    }
}

/// Whether it ended by a signal that nobody sends to themselves.
fn was_killed(exit: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    exit.signal().and_then(Signal::from_named_raw) == Some(Signal::KILL)
}

/// Whether QEMU names KVM in an error. What a path is called is not its doing.
fn speaks_of_kvm(line: &str) -> bool {
    line.split_whitespace()
        .filter(|word| !word.contains('/'))
        .any(|word| word.to_lowercase().contains("kvm"))
}

/// When KVM is condemned by another machine's trial; never, if it is not on trial here.
async fn condemned(trial: Option<&mut Trial>) -> String {
    if let Some(trial) = trial
        && let Ok(reason) = trial.condemned.wait_for(Option::is_some).await
        && let Some(reason) = reason.clone()
    {
        return reason;
    }
    std::future::pending().await
}

async fn tick(interval: &mut Interval, wanted: bool) {
    if wanted {
        interval.tick().await;
    } else {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::speaks_of_kvm;

    #[test]
    fn a_path_with_kvm_in_it_does_not_condemn_kvm() {
        assert!(speaks_of_kvm(
            "qemu-system-x86_64: failed to initialize kvm: Permission denied"
        ));
        assert!(speaks_of_kvm("error: kvm run failed Bad address"));
        assert!(speaks_of_kvm(
            "KVM: entry failed, hardware error 0x80000021"
        ));
        assert!(!speaks_of_kvm(
            "qemu-system-x86_64: Could not open '/srv/kvm/disk.img': No such file or directory"
        ));
    }
}
