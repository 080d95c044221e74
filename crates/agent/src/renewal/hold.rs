//! Keeping the only processor.
//!
//! Where the kernel takes no note of a restore, nothing may run before its random state is new. To hold
//! every service by its control group costs a restored machine much: each of them is woken when it may
//! go on, and so is systemd, which watches the groups. Where there is but one processor the agent keeps
//! that instead: it asks for the host's next word again and again, and nobody else is ever let in.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use machinist_sys::schedule::{Turn, take};
use machinist_wire::Blob;

use super::quiet;

/// The share of time that the kernel leaves to those who keep a processor, in microseconds; -1 for all.
const SHARE: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// So long nobody may run: the kernel complains after 20 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long the kernel keeps no share for others after a hold: that is put right when nobody waits for
/// anything any more.
const LATER: Duration = Duration::from_secs(5);

/// The processor is ours: this thread's turn is the first, also when this is dropped.
pub(crate) struct Hold {
    share: Share,
    until: Instant,
}

/// What is left of a hold, until it is dropped.
pub(crate) struct Rest {
    _share: Share,
    at: Instant,
}

impl Rest {
    /// When it is to be dropped.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

/// The share of others as it was, and as it is again when this is dropped.
struct Share(String);

impl Drop for Share {
    fn drop(&mut self) {
        // Who has the lead goes first without it.
        drop(fs::write(SHARE, &self.0));
    }
}

impl Hold {
    /// Keeps all others from the only processor.
    pub(super) fn new() -> io::Result<Self> {
        if std::thread::available_parallelism()?.get() > 1 {
            return Err(io::Error::other("there are several processors"));
        }
        let share = Share(fs::read_to_string(SHARE)?);
        fs::write(SHARE, "-1")?;
        let hold = Self {
            share,
            until: Instant::now() + PATIENCE,
        };
        take(Turn::First)?;
        Ok(hold)
    }

    /// Whether it has lasted too long.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Lets others run, but not before they stand still by their control groups: those.
    pub(crate) fn hand_over(self) -> Vec<Blob> {
        // Where that cannot be, there is nobody to tell.
        let frozen = quiet::freeze().unwrap_or_default();
        drop(self.release());
        frozen
    }

    /// Lets others run.
    pub(super) fn release(self) -> Rest {
        // Who may keep a processor may give it up.
        drop(take(Turn::Fair));
        Rest {
            _share: self.share,
            at: Instant::now() + LATER,
        }
    }
}
