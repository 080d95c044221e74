//! What `__launch` and `__script` have in common: both run one process after another, each the first
//! of a process-id namespace, and tell the engine of it over the socket that is their standard input.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};

use machinist_sys::process::{Child, Signal, Spawn};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::cgroup;
use super::plan::{Said, order};
use crate::mounts::magic;
use crate::path_error::PathError;

/// The status by which nspawn says that the container wants to restart.
pub(crate) const RESTART: i32 = 133;

/// Why a process could not be watched to its end.
#[derive(Debug)]
pub(crate) enum WatchError {
    /// The engine is gone.
    Engine(io::Error),
    /// The process cannot be run.
    Execute(io::Error),
    /// Its cgroup cannot be reached.
    Cgroup(PathError),
}

/// A whole verb: does what it is there for, and tells the engine how it ended.
pub(crate) fn verb<E: std::error::Error>(
    perform: impl FnOnce(&UnixStream) -> Result<ExitStatus, E>,
) -> ExitCode {
    let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let engine = UnixStream::from(fd);
    let (last, code) = match perform(&engine) {
        Ok(exit) => (Said::Ended(exit.into_raw()), ExitCode::SUCCESS),
        Err(error) => (Said::Failed(crate::error::chain(&error)), ExitCode::FAILURE),
    };
    // Nobody to tell, if this fails: the engine is gone, and so are we.
    drop(say(&engine, &last));
    code
}

/// Tells the engine one thing.
pub(crate) fn say(mut engine: &UnixStream, said: &Said) -> io::Result<()> {
    writeln!(engine, "{said}")
}

/// Runs what `prepare` makes to its end, and where restarts are allowed, as often as the container
/// wants to.
pub(crate) fn watch(
    engine: &UnixStream,
    cgroup: Option<&OwnedFd>,
    may_restart: bool,
    prepare: impl Fn() -> Spawn,
) -> Result<ExitStatus, WatchError> {
    loop {
        let exit = watch_one(engine, cgroup, prepare())?;
        if exit.code() != Some(RESTART) || !may_restart {
            return Ok(exit);
        }
        say(engine, &Said::Restarting).map_err(WatchError::Engine)?;
        if let Some(cgroup) = cgroup {
            cgroup::clear(&magic(cgroup));
        }
    }
}

fn watch_one(
    engine: &UnixStream,
    cgroup: Option<&OwnedFd>,
    mut spawn: Spawn,
) -> Result<ExitStatus, WatchError> {
    spawn
        .command()
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit());
    spawn.first_process();
    if let Some(cgroup) = cgroup {
        let processes = cgroup::processes(&magic(cgroup)).map_err(WatchError::Cgroup)?;
        spawn.cgroup(processes.into());
    }
    let mut child = spawn.start_here().map_err(WatchError::Execute)?;
    say(engine, &Said::Running(child.pid())).map_err(WatchError::Engine)?;
    loop {
        let ours = child.pidfd();
        let mut polled = [
            PollFd::new(&ours, PollFlags::IN),
            PollFd::new(engine, PollFlags::IN),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(WatchError::Execute(error.into())),
        }
        let (ended, ordered) = (
            !polled[0].revents().is_empty(),
            !polled[1].revents().is_empty(),
        );
        if ended {
            return child.wait().map_err(WatchError::Execute);
        }
        if ordered {
            obey(engine, &child)?;
        }
    }
}

/// Does what the engine orders. An engine that is gone is an error, and the end of the container.
fn obey(mut engine: &UnixStream, child: &Child) -> Result<(), WatchError> {
    let mut order = [0];
    engine.read_exact(&mut order).map_err(WatchError::Engine)?;
    if order == [order::BUTTON] {
        child.signal(Signal::TERM).map_err(WatchError::Execute)?;
    }
    Ok(())
}
