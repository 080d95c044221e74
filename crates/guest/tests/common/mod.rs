//! An agent on this machine, at the other end of a socket pair.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use machinist_guest::Agent;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// A running agent. It ends with its channel.
pub struct Local {
    pub agent: Agent,
    pub dir: TempDir,
    pub child: Child,
}

impl Local {
    pub async fn start() -> Self {
        Self::with_patience(Duration::from_secs(60)).await
    }

    pub async fn with_patience(patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = StdStream::pair().unwrap();
        let child = start(&dir, theirs);
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        let agent = Agent::connect_with(ours, Duration::from_secs(60), patience);
        let agent = agent.await.unwrap();
        Self { agent, dir, child }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts the binary that the library carries.
pub fn start(dir: &TempDir, channel: StdStream) -> Child {
    let path = dir.path().join("agent");
    std::fs::write(&path, machinist_guest::AGENT).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(&path);
    command
        .arg("serve")
        .stdin(Stdio::from(OwnedFd::from(channel)));
    loop {
        match command.spawn() {
            // Another test forked while the file was written, and has not yet let go of it.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
            spawned => return spawned.unwrap(),
        }
    }
}
