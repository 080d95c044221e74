//! What a VM that boots to be saved, or is restored, does beside what every VM does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machinist_guest::{Agent, Renewal, Settled};
use tokio::time::timeout;

use super::ScriptVm;
use super::doors::Doors;
use super::run::Running;
use super::warm::{Golden, Restore, Ripe, Way, ripen};
use crate::backend::{Channel, Happening};
use crate::environment::Report;
use crate::error::chain;
use crate::snapshot::Saved;

/// How long a restore may take to be of use. It takes tenths of a second.
const RESTORED: Duration = Duration::from_secs(60);

/// What a restored machine's journal has.
const MARK: &str = "machinist: this machine was restored from a snapshot";

/// What follows a QEMU that was not the last of its start.
pub(super) enum Next {
    /// A restore of what was saved just now.
    Restore(Box<Saved>),
    /// A boot: nothing can be saved, for this reason.
    Cold(String),
    /// A boot: this snapshot is of no use, for this reason.
    Useless(Box<Restore>, String),
}

impl Next {
    /// After a warm start that came to nothing.
    pub(super) fn of_failed(way: Way, reason: String) -> Self {
        match way {
            Way::Restore(restore) => Self::Useless(restore, reason),
            Way::Boot | Way::Golden(_) => Self::Cold(reason),
        }
    }
}

/// The way of the next QEMU.
pub(super) async fn way(this: &Arc<ScriptVm>, next: Next) -> Way {
    match next {
        Next::Cold(reason) => {
            this.cold(reason);
            this.clear();
            Way::Boot
        }
        Next::Useless(restore, reason) => {
            this.discard(restore.into_saved(), reason);
            Way::Boot
        }
        Next::Restore(saved) => {
            this.clear();
            match this.restore(&saved).await {
                Ok(restore) => Way::Restore(Box::new(restore.of_this_run())),
                Err(reason) => {
                    this.discard(*saved, reason);
                    Way::Boot
                }
            }
        }
    }
}

impl Running {
    /// From now on it is a machine that boots, and nothing else.
    pub(super) fn boots(&mut self, reason: &str) {
        if let Way::Golden(_) = self.way {
            self.give_up(reason);
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.way = Way::Boot;
        if let Some(ripening) = self.ripening.take() {
            ripening.abort();
        }
        self.record.stop();
        self.this.cold(reason.to_owned());
        let attach = &self.this.environment.attach;
        attach.plug(&self.this.spec.name, true);
    }

    /// Waits at its agent until it can be saved.
    pub(super) fn ripen(&mut self, channel: Channel) {
        if let Some(before) = self.ripening.take() {
            before.abort();
        }
        let within = self.this.spec.start_within;
        self.ripening = Some(tokio::spawn(ripen(channel, within)));
    }

    /// Saves it, or lets it go on for good.
    pub(super) async fn ripened(&mut self, ripe: Ripe) -> Option<Saved> {
        let why = match ripe {
            Ripe::Never(reason) => reason,
            Ripe::Now(agent, settled) => match self.save(&settled).await {
                Ok(saved) => return Some(saved),
                Err(reason) => {
                    self.resume(&agent, &settled).await;
                    reason
                }
            },
        };
        self.give_up(&why);
        // Another connection, which is the machine's own: its agent starts over on it.
        self.agent = false;
        self.renew();
        self.agent_up();
        None
    }

    async fn save(&mut self, settled: &Settled) -> Result<Saved, String> {
        let began = Instant::now();
        let (Way::Golden(golden), Some(doors)) =
            (std::mem::replace(&mut self.way, Way::Boot), &self.doors)
        else {
            return Err("it was given up".to_owned());
        };
        let typed = self.console.as_ref().is_some_and(|it| it.touched());
        if typed || doors.qmp.touched() {
            return Err("somebody typed to it, or spoke to its QEMU, while it booted".to_owned());
        }
        let console = self.record.text();
        let saved = golden
            .save(&self.this, &doors.qmp, settled, console)
            .await?;
        let seconds = began.elapsed().as_secs_f64();
        (self.this.environment.report)(Report::SnapshotSaved { seconds });
        Ok(saved)
    }

    /// It stands still or is quiet, and goes on as if nothing had been.
    async fn resume(&self, agent: &Agent, settled: &Settled) {
        if let Some(doors) = &self.doors {
            Golden::go_on(&doors.qmp).await;
        }
        let renewed = agent.renew(&Renewal::resume(settled)).await;
        if let Err(error) = renewed {
            let why = chain(&error);
            self.say(Happening::Note(format!(
                "it was about to be saved, and is not quite what it was: {why}"
            )));
        }
    }

    /// Loads what was saved, and makes the machine right.
    pub(super) async fn restore(&mut self, doors: &mut Doors) -> Result<(), String> {
        let restored = timeout(RESTORED, self.restored(doors)).await;
        let agent = restored.map_err(|_| "it does not come back".to_owned())??;
        let Way::Restore(restore) = std::mem::replace(&mut self.way, Way::Boot) else {
            return Ok(());
        };
        let seconds = self.link.began.elapsed().as_secs_f64();
        (self.this.environment.report)(Report::Restored { seconds });
        self.reachable(doors);
        if restore.system_ready() {
            self.say(Happening::Ready);
        }
        self.agent = true;
        self.say(Happening::Agent(agent));
        // For as long as it runs, nobody takes its snapshot away.
        self.held = Some(restore.into_saved());
        Ok(())
    }

    async fn restored(&self, doors: &mut Doors) -> Result<Agent, String> {
        let Way::Restore(restore) = &self.way else {
            return Err("there is nothing to restore".to_owned());
        };
        let pid = doors.pid.ok_or("QEMU is in another PID namespace")?;
        restore
            .load(&self.this, &doors.qmp, pid, self.link.may_restart)
            .await?;
        if let Some(console) = restore.console() {
            self.this.console.feed(&console);
        }
        Golden::go_on(&doors.qmp).await;
        let port = doors.port.take().map_err(|error| error.to_string())?;
        let port = port.ok_or("its agent's port is taken")?;
        let agent = Agent::connect(port, RESTORED).await;
        let agent = agent.map_err(|error| chain(&error))?;
        let renewal = renewal(restore.settled()).map_err(|error| error.to_string())?;
        let renewed = agent.renew(&renewal).await.map_err(|error| chain(&error))?;
        for lack in renewed.lacks {
            let (what, why) = (lack.what, lack.why);
            self.say(Happening::Note(format!("{what} after the restore: {why}")));
        }
        Ok(agent)
    }
}

/// What the machine is told: it is who it was.
fn renewal(settled: &Settled) -> std::io::Result<Renewal> {
    Ok(Renewal {
        settled: settled.clone(),
        mark: MARK.to_owned(),
        ..Renewal::again()?
    })
}
