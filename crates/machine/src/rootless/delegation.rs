//! A control group of the user's own.
//!
//! A container's systemd makes control groups, so it needs one that is the user's. Who logs in gets
//! one that is not; but the user's own systemd manages some that are, and moves processes into them
//! if asked.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::nspawn::cgroup;

/// How long systemd may take to move us.
const WITHIN: Duration = Duration::from_secs(5);

/// Asks the user's systemd for a scope of our own, unless our control group is one already. Where
/// there is no such systemd, everything stays as it is: what is lacking is seen when it is used.
pub(super) fn ask_for(search: &OsStr) {
    let Some(before) = cgroup::of_process(None) else {
        return;
    };
    if rustix::fs::access(&before, rustix::fs::Access::WRITE_OK).is_ok() {
        return;
    }
    let Some(busctl) = super::find(search, "busctl") else {
        return;
    };
    let pid = std::process::id().to_string();
    let unit = format!("machinist-{pid}.scope");
    let asked = Command::new(busctl)
        .args(["--user", "--quiet", "call", "org.freedesktop.systemd1"])
        .args([
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
        ])
        .args(["StartTransientUnit", "ssa(sv)a(sa(sv))", &unit, "fail"])
        .args(["3", "Description", "s", "Machines of machinist"])
        .args(["Delegate", "b", "true", "PIDs", "au", "1", &pid, "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if asked.is_ok_and(|status| status.success()) {
        wait_until_moved(&before);
    }
}

/// The answer comes before the deed, and of the deed the kernel tells nobody.
fn wait_until_moved(before: &std::path::Path) {
    let deadline = Instant::now() + WITHIN;
    let mut pause = Duration::from_millis(1);
    while cgroup::of_process(None).as_deref() == Some(before) && Instant::now() < deadline {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
