//! How a container's run ends, whoever started its systemd-nspawn.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::cgroup::Cgroup;
use super::run::Supervisor;
use crate::lifecycle::Ending;
use crate::supervised::Supervised;

/// How long after the process the rest of its output may come.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

/// Why a container's loop ended.
pub(crate) enum End {
    /// The launcher's process (systemd-nspawn, or a start script) ended, with all of the container.
    Ended(ExitStatus),
    /// The launcher could not go on.
    Failed(String),
    /// The launcher was killed.
    Lost,
    /// We are to end it.
    Killed,
}

impl End {
    /// What that is for the machine; `judge` says what an exit status is.
    pub(crate) fn ending(self, judge: impl FnOnce(ExitStatus) -> Ending) -> Ending {
        match self {
            Self::Ended(exit) => judge(exit),
            Self::Failed(reason) => Ending::Fault(reason),
            Self::Lost => Ending::Fault("the container's launcher was killed".to_owned()),
            Self::Killed => Ending::Killed,
        }
    }
}

/// Ends the launcher, and takes the rest of its output.
pub(crate) async fn end(launcher: &mut Supervised, readers: &mut [JoinHandle<()>]) {
    launcher.kill();
    // Only its being reaped by somebody else is an error, and then it is gone as well.
    drop(launcher.ended().await);
    for reader in readers {
        drop(tokio::time::timeout(DRAIN, reader).await);
    }
}

/// Lets go what a container had, when the kernel has cleared it away; at last `ground`, which is its
/// part of the network.
pub(crate) async fn release(
    supervisor: Option<Supervisor>,
    entered: Option<Supervised>,
    cgroup: Option<Cgroup>,
    ground: impl Send + 'static,
) {
    // All of these wait for processes or for the kernel to let go.
    let release = tokio::task::spawn_blocking(move || {
        if let Some(supervisor) = supervisor {
            supervisor.wait_until_clear();
        }
        // Not before: it reaps the agent, and a namespace is not clear before all are reaped.
        drop(entered);
        drop(cgroup);
        drop(ground);
    });
    drop(release.await);
}
