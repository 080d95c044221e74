//! The hidden verb `__script`: runs a container's start script on its session's ground.
//!
//! As `__launch` it has a process of its own with one thread, and speaks with the engine over the
//! socket that is its standard input:
//!
//! 1. engine: the [`Stage`], one line of JSON
//! 2. launcher: `Running`, perhaps `Restarting` and again, at last `Ended`;
//!    engine: `BUTTON` to ask the script to end, by SIGTERM
//!
//! The script is the first process of a process-id namespace: systemd-nspawn under it, the container,
//! and whatever else it starts die with it. Its mounts (`ip netns` makes some) are in a mount
//! namespace of its own, a copy of the ground's.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use machinist_sys::netlink::Netlink;
use machinist_sys::process::Spawn;
use serde::{Deserialize, Serialize};

use super::unrunnable::unrunnable;
use crate::mounts::{handle, keep_to_ourselves, make_dir};
use crate::nspawn::watch::{self, WatchError};
use crate::path_error::{PathContext, PathError};

/// Where scripts find the directories of their notification sockets, each by its machine's name. The
/// ground's own /run has it, and the host's never: `/run/machinist` would be the host's, seen there, too.
pub(super) const NOTIFY: &str = "/run/machinist-notify";

/// All that is told of one script. It goes over a socket of our own, between processes of one
/// binary: no version is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stage {
    /// The machine's name.
    pub(super) name: String,
    /// The script, or a command line for `/bin/sh`.
    pub(super) command: String,
    /// Where it is started.
    pub(super) directory: PathBuf,
    /// Its environment, all of it.
    pub(super) environment: Vec<(String, String)>,
    /// The directory of the host in which the notification socket is.
    pub(super) notify: PathBuf,
    /// The ground's mount namespace.
    pub(super) mounts: PathBuf,
    /// The ground's network namespace.
    pub(super) network: PathBuf,
    /// The directory of the container's own cgroup.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether a restart from inside is one. Otherwise it is the end.
    pub(super) may_restart: bool,
}

/// Why a script could not be run.
#[derive(Debug, thiserror::Error)]
enum StageError {
    #[error("the engine spoke nonsense")]
    Nonsense(#[source] serde_json::Error),
    #[error("the engine is gone")]
    Engine(#[source] io::Error),
    #[error("cannot enter the session's namespaces")]
    Enter(#[source] io::Error),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("cannot run the start script {command}")]
    Execute {
        command: String,
        #[source]
        source: io::Error,
    },
}

/// Runs the verb.
pub(crate) fn main() -> ExitCode {
    watch::verb(perform)
}

fn perform(engine: &UnixStream) -> Result<ExitStatus, StageError> {
    let mut line = String::new();
    BufReader::new(engine)
        .read_line(&mut line)
        .map_err(StageError::Engine)?;
    let stage: Stage = serde_json::from_str(&line).map_err(StageError::Nonsense)?;
    // Found before other mounts are around us.
    let cgroup = stage.cgroup.as_deref().map(handle).transpose()?;
    enter(&stage)?;
    let ended = watch::watch(engine, cgroup.as_ref(), stage.may_restart, || {
        tidy(&stage.name);
        script(&stage)
    });
    ended.map_err(|error| match error {
        WatchError::Engine(error) => StageError::Engine(error),
        WatchError::Execute(source) => StageError::Execute {
            source: unrunnable(Path::new(&stage.command), source),
            command: stage.command.clone(),
        },
        WatchError::Cgroup(error) => StageError::Path(error),
    })
}

fn enter(stage: &Stage) -> Result<(), StageError> {
    let open = |path: &Path| fs::File::open(path).map(OwnedFd::from);
    let mounts = open(&stage.mounts).map_err(StageError::Enter)?;
    let network = open(&stage.network).map_err(StageError::Enter)?;
    machinist_sys::isolation::enter(mounts.as_fd(), network.as_fd()).map_err(StageError::Enter)?;
    keep_to_ourselves()?;
    let (all, own) = (Path::new(NOTIFY), Path::new(NOTIFY).join(&stage.name));
    make_dir(all)?;
    // Of an earlier run, in the same place.
    drop(fs::remove_file(&own));
    std::os::unix::fs::symlink(&stage.notify, &own).path(&own)?;
    Ok(())
}

/// Removes what an earlier run of the same machine left, because it was killed: the file by which its
/// network namespace was known, and its interfaces, which the kernel takes away in its own time.
fn tidy(name: &str) {
    // All of this is usually not there; and what cannot be removed, the script complains of.
    drop(fs::remove_file(format!("/run/netns/nixos-nspawn-{name}")));
    let Ok(mut netlink) = Netlink::open() else {
        return;
    };
    for link in netlink.links().unwrap_or_default() {
        if is_outer_end(&link.name, name) {
            drop(netlink.delete(link.index));
        }
    }
}

/// Whether `link` is `NAME-eth1` or so. What is `web-1-eth1` is another machine's than `web`'s.
fn is_outer_end(link: &str, machine: &str) -> bool {
    let inner = link
        .strip_prefix(machine)
        .and_then(|rest| rest.strip_prefix('-'));
    inner.is_some_and(|inner| !inner.is_empty() && !inner.contains('-'))
}

/// The script, about to run.
fn script(stage: &Stage) -> Spawn {
    let mut spawn = command(stage);
    spawn
        .command()
        .env_clear()
        .envs(stage.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&stage.directory);
    spawn
}

/// A path is executed, anything else is for the shell.
fn command(stage: &Stage) -> Spawn {
    if Path::new(&stage.command).is_file() {
        return Spawn::new(&stage.command);
    }
    let mut spawn = Spawn::new("/bin/sh");
    spawn
        .command()
        .args(["-c", &format!("exec {}", stage.command)]);
    spawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_belong_to_one_machine() {
        assert!(is_outer_end("web-eth1", "web"));
        assert!(is_outer_end("web-1-eth1", "web-1"));
        assert!(!is_outer_end("web-1-eth1", "web"));
        assert!(!is_outer_end("web2-eth1", "web"));
        assert!(!is_outer_end("br1", "br1"));
    }
}
