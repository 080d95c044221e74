//! A machine that is this host.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machinist_guest::Agent;
use machinist_machine::Console;
use tokio::net::UnixStream;

use crate::control::{Control, Doing};
use crate::protocol::Fault;

pub(super) struct Local {
    agent: Agent,
    child: Mutex<Child>,
    env: BTreeMap<String, String>,
}

impl Local {
    pub(super) async fn start(directory: &Path) -> Self {
        std::fs::create_dir(directory).unwrap();
        let path = directory.join("agent");
        std::fs::write(&path, machinist_guest::AGENT).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let (ours, theirs) = StdStream::pair().unwrap();
        let mut command = Command::new(&path);
        command
            .arg("serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = loop {
            match command.spawn() {
                // Another test forked while the file was written, and has not yet let go of it.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                spawned => break spawned.unwrap(),
            }
        };
        // Its copy of the agent's end would keep the channel open.
        drop(command);
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        let agent = Agent::connect(ours, Duration::from_secs(60)).await.unwrap();
        Self {
            agent,
            child: Mutex::new(child),
            env: BTreeMap::from([("FROM_LAB".to_owned(), "yes".to_owned())]),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        drop(child.kill());
        drop(child.wait());
    }
}

impl Control for Local {
    fn kind(&self) -> &'static str {
        "container"
    }

    fn addresses(&self) -> Vec<String> {
        vec!["192.168.1.1/24".to_owned()]
    }

    fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    fn state(&self) -> &'static str {
        if self.agent.reason().is_some() {
            "failed"
        } else {
            "up"
        }
    }

    fn start(self: Arc<Self>, _allow_reboot: Option<bool>) -> Doing<'static, Agent> {
        let agent = self.agent.clone();
        Box::pin(async { Ok(agent) })
    }

    fn agent(&self) -> Doing<'_, Agent> {
        Box::pin(async { Ok(self.agent.clone()) })
    }

    fn ready(&self) -> Doing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn shutdown(&self, _within: Option<Duration>) -> Doing<'_, ()> {
        self.crash()
    }

    fn crash(&self) -> Doing<'_, ()> {
        Box::pin(async {
            self.child.lock().unwrap().kill().unwrap();
            self.agent.closed().await;
            Ok(())
        })
    }

    fn reboot(&self) -> Doing<'_, ()> {
        Box::pin(async { Err(Fault::usage("this host is not to be rebooted")) })
    }

    fn wait_shutdown(&self) -> Doing<'_, ()> {
        Box::pin(async {
            self.agent.closed().await;
            Ok(())
        })
    }

    fn why_lost(&self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(async { Some("its agent was killed".to_owned()) })
    }

    fn console(&self) -> Doing<'_, Console> {
        Box::pin(async { Err(Fault::usage("this host's console is its own")) })
    }
}
