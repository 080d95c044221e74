//! A process above the tests that adopts what their children leave behind, as process 1 would, and
//! lets it go when it has ended.
//!
//! The tests cannot do it themselves: who waits for any child at all takes the exit status from
//! whoever waits for that one. And it has to be done at once: a process-id namespace does not end
//! before all of its processes have been waited for.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use rustix::process::{Signal, WaitOptions, getpid, set_child_subreaper, wait};

/// Tells the second process of the two that it is that.
const BELOW: &str = "MACHINIST_TESTS_BELOW_A_REAPER";

/// To be called first in `main`. In the process above, gives the exit code of the one below, which
/// runs the tests; there it gives nothing.
///
/// # Errors
/// The system does not let us adopt, or the second process cannot be started.
pub fn above_us() -> Result<Option<ExitCode>> {
    if is_above_us() {
        // If the one above is killed, nobody would adopt any more.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .context("cannot be bound to the process above")?;
        return Ok(None);
    }
    set_child_subreaper(Some(getpid())).context("cannot adopt processes")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let tests = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BELOW, "1")
        .spawn()
        .context("cannot start the tests")?;
    let tests = i64::from(tests.id());
    loop {
        let ended = wait(WaitOptions::empty()).context("cannot wait for the tests")?;
        if let Some((pid, status)) = ended
            && i64::from(pid.as_raw_nonzero().get()) == tests
        {
            let code = status
                .exit_status()
                .and_then(|code| u8::try_from(code).ok());
            return Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)));
        }
    }
}

/// Whether the process above us is the one that adopts.
pub(crate) fn is_above_us() -> bool {
    std::env::var_os(BELOW).is_some()
}
