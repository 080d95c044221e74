//! Whether a VM that runs under KVM for the first time lives.
//!
//! Sign of life is a byte on the serial console, or the agent's port opening. A guest that burns
//! processor time without any is stuck: a kernel that runs natively says something many times in
//! each second of its boot. A guest that waits (for a busy host, for a disk) burns nothing.

use std::time::Duration;

use machinist_sys::stat::Stat;

/// Processor time that may pass between two signs of life.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

/// Watches one VM.
#[derive(Debug, Default)]
pub(crate) struct Vitality {
    signs: u64,
    burnt_at_sign: Duration,
}

impl Vitality {
    /// `signs` counts signs of life so far, `burnt` is the processor time used so far. Returns how
    /// much was burnt in silence, if that is too much.
    pub(crate) fn look(&mut self, signs: u64, burnt: Duration) -> Option<Duration> {
        if signs != self.signs {
            self.signs = signs;
            self.burnt_at_sign = burnt;
        }
        let silent = burnt.saturating_sub(self.burnt_at_sign);
        (silent >= PATIENCE).then_some(silent)
    }
}

/// Processor time that all threads of process `pid` have used. Until a guest lives, hardly any but
/// the virtual processors use some.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = Stat::of(pid)?;
    let (user, system) = (stat.number(14)?, stat.number(15)?);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis((user + system) * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn silence_counts_only_while_it_burns() {
        let mut vitality = Vitality::default();
        assert_eq!(vitality.look(0, seconds(1)), None);
        assert_eq!(vitality.look(10, seconds(4)), None);
        assert_eq!(vitality.look(10, seconds(8)), None);
        assert_eq!(vitality.look(11, seconds(9)), None);
        assert_eq!(vitality.look(11, seconds(9)), None);
        assert_eq!(vitality.look(11, seconds(14)), Some(seconds(5)));
    }
}
