//! Snapshots: what is done before a machine is saved, and after it was restored.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime};

use machinist_wire::message::{Reply, Request};
use machinist_wire::renewal;
pub use machinist_wire::renewal::{Change, HostKey, HostKeyFile, Lack, Renewed};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::error::{ChannelError, GuestError};
use crate::systemd::{Manager, Timer, job_message, state_message};

/// How long systemd may take to say which timers there are, and to stop them.
const TIMERS: Duration = Duration::from_secs(60);

/// A guest's clock is this near to the host's, or it is set once more: which systemd takes note of,
/// and whoever waits for a time of the calendar.
const CLOCK: Duration = Duration::from_millis(40);

/// Timers that are due so soon after a restore count as those that were due before.
const SOON: Duration = Duration::from_secs(5);

/// How often the clock is set once more: every time the way there is shorter, since the code for it
/// has been run before.
const CLOCK_TRIES: u32 = 3;

/// A machine that is ready to be saved: what it has, and what is to be undone after a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// In the agent's words.
    pub agent: renewal::Settled,
    /// Timers of systemd that go by the calendar.
    pub timers: Vec<Timer>,
}

/// What a restored machine is told; see [`Agent::renew`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Bytes that nobody else has, for the kernel's random state.
    pub entropy: Vec<u8>,
    /// Who the machine was, and who it is now. None where it stays who it is.
    pub change: Option<Change>,
    /// SSH host keys in the place of those that were saved.
    pub host_keys: Vec<HostKey>,
    /// What was stopped or looked at before the save.
    pub settled: Settled,
    /// A line for the journal; none if empty.
    pub mark: String,
    /// The machine is to stand still after this: nothing may be under way then.
    pub passing: bool,
}

impl Renewal {
    /// For a machine that goes on after it was settled, without a restore.
    #[must_use]
    pub fn resume(settled: &Settled) -> Self {
        Self {
            settled: settled.clone(),
            ..Self::default()
        }
    }

    /// For a machine that goes back to what it was: the clock, and new random numbers.
    ///
    /// # Errors
    /// The host gives no random numbers.
    pub fn again() -> std::io::Result<Self> {
        Ok(Self {
            entropy: entropy()?,
            ..Self::default()
        })
    }
}

/// Fresh bytes of the host's, enough for a kernel's random state.
///
/// # Errors
/// The host gives none.
pub fn entropy() -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 64];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Agent {
    /// Makes the machine quiet, so that it can be saved: caches are written, and what would take up
    /// its first moments after a restore is done before. Says what there is. A `mark` that is not
    /// empty is the journal's last line before that. The machine is to be saved now, and
    /// [`renewed`](Agent::renew) after every restore; or to go on with [`Renewal::resume`].
    ///
    /// # Errors
    /// There is no agent but a shell, it or systemd refuses, or the channel ended.
    pub async fn settle(&self, mark: &str) -> Result<Settled, GuestError> {
        let mut settled = Settled::default();
        let mut lacks = Vec::new();
        if let Some(manager) = self.systemd().await? {
            match manager.calendar_timers(Instant::now() + TIMERS).await {
                Ok(timers) => settled.timers = timers,
                Err(error) => lacks.push(Lack {
                    what: "timers".into(),
                    why: error.to_string(),
                }),
            }
            // systemd would hear of it after every restore, and look at who is left.
            manager.hang_up().await;
        }
        let handle = self.link.open(&Request::Settle {
            mark: mark.to_owned(),
        })?;
        match handle.reply().await? {
            Reply::Settled(agent) => settled.agent = agent,
            _ => return Err(ChannelError::Unexpected("another reply than settled").into()),
        }
        settled.agent.lacks.extend(lacks);
        Ok(settled)
    }

    /// systemd's manager, where the machine has one and there is an agent to reach it through.
    async fn systemd(&self) -> Result<Option<Manager>, GuestError> {
        if self.info().plain {
            return Ok(None);
        }
        match Manager::connect(self, None, Instant::now()).await {
            Ok(manager) => Ok(Some(manager)),
            Err(crate::systemd::SystemdError::Guest(GuestError::Channel(error))) => {
                Err(error.into())
            }
            Err(_) => Ok(None),
        }
    }

    /// Makes a restored machine right: its clock, its random state, and what else is told. One
    /// round trip, after which commands may run.
    ///
    /// # Errors
    /// Part of it that must be so cannot be done, and the machine is of no use; or the channel ended.
    pub async fn renew(&self, renewal: &Renewal) -> Result<Renewed, GuestError> {
        let settled = &renewal.settled;
        let (due, loose) = due_timers(&settled.timers, now());
        let request = renewal::Renewal {
            clock: now(),
            entropy: renewal.entropy.clone().into(),
            change: renewal.change.clone(),
            host_keys: renewal.host_keys.clone(),
            reload: match renewal.host_keys.is_empty() {
                true => Vec::new(),
                false => settled.agent.sshd.clone(),
            },
            thaw: settled.agent.frozen.clone(),
            due,
            mark: renewal.mark.clone(),
        };
        let mut renewed = self.ask_to_renew(request).await?;
        renewed.lacks.extend(loose);
        if !renewal.passing {
            self.approach_clock(&renewed);
        }
        Ok(renewed)
    }

    async fn ask_to_renew(&self, request: renewal::Renewal) -> Result<Renewed, GuestError> {
        let handle = self.link.open(&Request::Renew(Box::new(request)))?;
        match handle.reply().await? {
            Reply::Renewed(renewed) => Ok(renewed),
            _ => Err(ChannelError::Unexpected("another reply than renewed").into()),
        }
    }

    /// The guest's clock is behind by what the request took to get there. Where that may be too
    /// much, the clock is set again, beside all else that happens.
    fn approach_clock(&self, renewed: &Renewed) {
        let off = |renewed: &Renewed| Duration::from_nanos(now().saturating_sub(renewed.clock));
        if off(renewed) <= CLOCK {
            return;
        }
        let agent = self.clone();
        tokio::spawn(async move {
            for _ in 0..CLOCK_TRIES {
                let request = renewal::Renewal {
                    clock: now(),
                    ..renewal::Renewal::default()
                };
                // Where the channel has ended, so has the machine, or it is another one's now.
                match agent.ask_to_renew(request).await {
                    Ok(renewed) if off(&renewed) > CLOCK => {}
                    _ => return,
                }
            }
        });
    }
}

/// The host's clock, in nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// What systemd is told of those timers that are due at `clock`, in nanoseconds since 1970; and what
/// it cannot be told.
fn due_timers(timers: &[Timer], clock: u64) -> (Option<renewal::DueTimers>, Vec<Lack>) {
    let by = (clock + u64::try_from(SOON.as_nanos()).unwrap_or(u64::MAX)) / 1000;
    let (loose, due): (Vec<_>, Vec<_>) = timers
        .iter()
        .filter(|timer| timer.due <= by)
        .partition(|timer| timer.loose);
    let lacks = loose.into_iter().map(|timer| Lack {
        what: "timers".into(),
        why: format!(
            "{} is of no file, and fires: it was due meanwhile",
            timer.unit
        ),
    });
    let all = |method| {
        let messages = due.iter().map(|timer| job_message(method, &timer.unit));
        messages.flatten().collect::<Vec<_>>().into()
    };
    let ask = due.iter().map(|timer| state_message(&timer.object).into());
    let told = (!due.is_empty()).then(|| renewal::DueTimers {
        stop: all("StopUnit"),
        ask: ask.collect(),
        start: all("StartUnit"),
    });
    (told, lacks.collect())
}

#[cfg(test)]
mod tests {
    use machinist_wire::Blob;

    use super::*;

    #[test]
    fn what_was_settled_is_kept_as_json() {
        let mut settled = Settled {
            timers: vec![timer("fstrim.timer", 7, false)],
            ..Settled::default()
        };
        settled.agent.host_keys.push(HostKeyFile {
            path: Blob(b"/etc/ssh/\xff".to_vec()),
            kind: "rsa".into(),
            bits: 3072,
        });
        settled.agent.frozen.push(Blob::default());
        let text = serde_json::to_string(&settled).unwrap();
        assert_eq!(serde_json::from_str::<Settled>(&text).unwrap(), settled);
    }

    #[test]
    fn nobody_gets_the_same_bytes() {
        let (one, two) = (entropy().unwrap(), entropy().unwrap());
        assert_eq!((one.len(), two.len()), (64, 64));
        assert_ne!(one, two);
    }

    fn timer(unit: &str, due: u64, loose: bool) -> Timer {
        Timer {
            unit: unit.to_owned(),
            object: "/unit".to_owned(),
            due,
            loose,
        }
    }

    #[test]
    fn only_timers_that_are_due_are_touched() {
        let minute = 60_000_000;
        let timers = [
            timer("past.timer", minute, false),
            timer("loose.timer", 2 * minute, true),
            timer("future.timer", 9 * minute, false),
        ];
        let clock = |minutes: u64| minutes * minute * 1000;
        assert_eq!(due_timers(&timers, clock(0)), (None, vec![]));
        let (told, lacks) = due_timers(&timers, clock(3));
        let told = told.unwrap();
        let (stop, start) = [&told.stop, &told.start]
            .map(|it| String::from_utf8_lossy(&it.0).into_owned())
            .into();
        assert!(stop.contains("StopUnit") && start.contains("StartUnit"));
        for text in [stop, start] {
            assert!(text.contains("past.timer") && !text.contains("future"));
        }
        assert_eq!((told.ask.len(), lacks.len()), (1, 1));
        assert!(lacks[0].why.starts_with("loose.timer "));
        assert_eq!(due_timers(&timers, clock(9)).0.unwrap().ask.len(), 2);
    }
}
