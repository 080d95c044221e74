//! Child processes that cannot outlive us.
//!
//! Every child gets a process group of its own, a pidfd, and a parent-death signal: when this
//! process ends, however it ends, the kernel kills the child. That signal is tied to the *thread*
//! that forked, not to the process, so one thread that lives as long as the process does all the
//! forking ([`spawn()`] hands it the work).
//!
//! A child is reaped only by its [`Child`], and only after what is left of its process group has
//! been killed. So a process id that a `Child` holds is never somebody else's.

mod child;
mod spawn;

pub use child::Child;
pub use rustix::process::Signal;
pub use spawn::{Spawn, spawn};

/// What tests start.
#[cfg(test)]
fn shell(script: &str) -> Spawn {
    let mut spawn = Spawn::new("/bin/sh");
    spawn.command().args(["-c", script]);
    spawn
}
