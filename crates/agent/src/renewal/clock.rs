//! The clock. The emulated one that keeps time without the kernel is the host's own all along.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use machinist_wire::message::Failure;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::failure;

/// Sets the clock to what it is now if it was so many nanoseconds since 1970 `then`; 0 leaves it alone.
pub(super) fn set(nanos: u64, then: Instant) -> Result<(), Failure> {
    if nanos == 0 {
        return Ok(());
    }
    let now = Duration::from_nanos(nanos) + then.elapsed();
    let time = Timespec::try_from(now)
        .map_err(|_| failure("cannot set the clock", rustix::io::Errno::INVAL))?;
    clock_settime(ClockId::Realtime, time).map_err(|errno| failure("cannot set the clock", errno))
}

/// In nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
