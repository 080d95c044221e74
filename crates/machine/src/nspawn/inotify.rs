//! Every systemd in a container takes a few inotify instances, and the kernel's default limit of
//! 128 for each user is used up by some twenty containers.

use std::fs;

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
/// Enough for some 150 containers.
const WANTED: u32 = 1024;

/// Sees to it that containers do not run out of inotify instances. Returns one sentence to be told
/// to the user, where something was done or is to be done.
#[must_use]
pub fn ensure() -> Option<String> {
    let have: u32 = fs::read_to_string(LIMIT).ok()?.trim().parse().ok()?;
    if have >= WANTED {
        return None;
    }
    if fs::write(LIMIT, WANTED.to_string()).is_ok() {
        return Some(format!(
            "raised fs.inotify.max_user_instances of this host from {have} to {WANTED}: containers need them"
        ));
    }
    Some(format!(
        "fs.inotify.max_user_instances is {have}, enough for some {} containers; `sysctl fs.inotify.max_user_instances={WANTED}` makes room",
        have / 6
    ))
}
