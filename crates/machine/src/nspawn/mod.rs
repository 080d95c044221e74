//! Containers, run by systemd-nspawn.
//!
//! Four processes make one: `__launch` ([`launch`]), systemd-nspawn under it, the container's init
//! under that, and `__enter` ([`enter`]), which brings the agent in. All mounts, namespaces and
//! interfaces of a container hang on the first; when it dies, the kernel takes them.

pub(crate) mod cgroup;
pub(crate) mod end;
pub(crate) mod enter;
pub(crate) mod files;
pub(crate) mod inotify;
mod inside;
pub(crate) mod launch;
pub(crate) mod notify;
mod plan;
pub(crate) mod run;
pub(crate) mod watch;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use machinist_sys::process::Spawn;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backend::{Happening, Mode, Run};
use crate::console::Console;
use crate::devices::Devices;
use crate::environment::{Attached, Environment};
use crate::error::LaunchError;
use crate::path_error::PathContext;
use crate::reach::Reach;
use crate::spec::{Kind, MachineSpec};
use crate::supervised::Supervised;
use crate::words::{self, Words};

use cgroup::Cgroup;
use files::Footing;
use notify::Notifications;
pub(crate) use plan::{Bind, Plan, Said, order, search_path};

/// How long a launcher that is about to end may take to say why. It has done so already, or is alive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One machine's backend.
pub(crate) struct Nspawn {
    pub(crate) spec: MachineSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
    pub(crate) words: Words,
}

impl Nspawn {
    /// Starts it; with `files`, an archive of what another start has written, on top of these.
    pub(crate) async fn launch(
        &self,
        mode: Mode,
        files: Option<&Path>,
    ) -> Result<Run, LaunchError> {
        let dir = &self.environment.dir;
        let notifications = Notifications::bind(dir)?;
        let cgroup = self.make_cgroup()?;
        let plan = self.plan(cgroup.as_ref(), mode, files);

        let (ours, theirs) = UnixStream::pair().path(dir)?;
        let failed = |source| LaunchError::Spawn {
            program: self.environment.exe.display().to_string(),
            source,
        };
        let (child, readers) = self.start_launcher(theirs).map_err(failed)?;
        let attached = Attached::new(&self.environment, &self.spec.name);
        let mut launcher = Launcher::new(ours).map_err(failed)?;
        let attached = self
            .converse(&mut launcher, &plan, child.pid(), attached)
            .await?;

        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        let notes = inotify::ensure().into_iter().chain(self.without_setuid());
        let reach = self.reach(child.pid(), cgroup.as_ref());
        for first in notes.map(Happening::Note).chain([reach]) {
            // The receiver is in our hand.
            drop(tell.send(first));
        }
        let running = run::Running {
            child,
            launcher,
            supervisor: None,
            early_leader: None,
            notifications,
            controlled,
            tell,
            words: self.words.clone(),
            exe: self.environment.exe.clone(),
            agent: self.environment.agent.clone(),
            readers,
            held: run::Held { cgroup, attached },
            entered: None,
        };
        Ok(Run {
            control,
            early: VecDeque::new(),
            happenings,
            task: tokio::spawn(running.run()),
        })
    }

    /// Starts `__launch`, with `socket` to speak to us, and readers of what the container and its
    /// supervisor print.
    fn start_launcher(&self, socket: UnixStream) -> io::Result<(Supervised, Vec<JoinHandle<()>>)> {
        let mut spawn = Spawn::new(&self.environment.exe);
        spawn
            .command()
            .arg("__launch")
            .env_clear()
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn.start()?;
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(words::console(OwnedFd::from(stdout), self.console.clone())?);
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(words::words(OwnedFd::from(stderr), self.words.clone())?);
        }
        Ok((Supervised::new(child)?, readers))
    }

    /// What handles can get at of the container that is under the process `launcher`.
    fn reach(&self, launcher: u32, cgroup: Option<&Cgroup>) -> Happening {
        let footing = Footing {
            launcher,
            cgroup: cgroup.map(|cgroup| cgroup.dir().to_owned()),
            search: self.environment.search.clone(),
        };
        Happening::Reach(Reach {
            running: true,
            footing: Some(Arc::new(footing)),
            ..Reach::default()
        })
    }

    /// What is agreed with `__launch` before it runs nspawn. While it makes its mounts, the network
    /// is laid. It is let go when that is done and nobody waits for it any more.
    async fn converse(
        &self,
        launcher: &mut Launcher,
        plan: &Plan,
        pid: u32,
        attached: Attached,
    ) -> Result<Attached, LaunchError> {
        let gone = LaunchError::HelperGone;
        let mut text = serde_json::to_string(plan)
            .map_err(|error| LaunchError::Unable(format!("a path is not UTF-8: {error}")))?;
        text.push('\n');
        launcher.send(text.as_bytes()).await.map_err(gone)?;
        match launcher.next().await {
            Some(Said::Isolated) => {}
            other => return Err(self.lost(other).await),
        }
        let (attach, name, nics) = (
            self.environment.attach.clone(),
            self.spec.name.clone(),
            self.spec.nics.clone(),
        );
        let attached = tokio::task::spawn_blocking(move || {
            attach.container_ports(&name, &nics, pid)?;
            Ok(attached)
        });
        let attached = attached
            .await
            .map_err(|error| LaunchError::Network(error.into()))?;
        let attached = match attached {
            Ok(attached) => attached,
            Err(error) => return Err(network_or_mounts(launcher, error).await),
        };
        // An error here is explained by what it says next.
        drop(launcher.send(&[order::GO]).await);
        Ok(attached)
    }

    /// Why the launcher did not say what it should.
    async fn lost(&self, said: Option<Said>) -> LaunchError {
        if let Some(Said::Failed(reason)) = said {
            return LaunchError::Helper(reason);
        }
        // It died without a word on the socket; a panic of its would be on its standard error.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let words = self.words.lines().join("; ");
        LaunchError::Helper(format!("the container's launcher died: {words}"))
    }

    /// One sentence to be told to the user, where programs in the container do not get the rights
    /// that they would have by their mode.
    fn without_setuid(&self) -> Option<String> {
        let error = crate::probe::setuid(&self.environment.dir).err()?;
        Some(format!(
            "programs that are setuid, such as sudo, work in a VM but not in a container here: {}",
            crate::error::chain(&error)
        ))
    }

    fn make_cgroup(&self) -> Result<Option<Cgroup>, LaunchError> {
        let cgroup = Cgroup::of_machine(&self.environment.dir, &self.spec.name)?;
        if let Some(cgroup) = &cgroup {
            cgroup.limit(Some(self.spec.memory), Some(self.spec.cpus));
        }
        Ok(cgroup)
    }

    fn plan(&self, cgroup: Option<&Cgroup>, mode: Mode, files: Option<&Path>) -> Plan {
        let spec = &self.spec;
        let devices = match &spec.kind {
            Kind::Container { devices } => devices.clone(),
            Kind::Vm { .. } => Devices::default(),
        };
        // Only the host's own root has our own things in it.
        let is_host = spec.image.root == Path::new("/");
        Plan {
            name: spec.name.clone(),
            dir: self.environment.dir.clone(),
            lower: spec.image.root.clone(),
            hidden: if is_host {
                self.environment.hidden.clone()
            } else {
                Vec::new()
            },
            files: files.map(Path::to_owned),
            hosts: spec.hosts_file(),
            machine_id: spec.machine_id.clone(),
            volumes: spec
                .volumes
                .iter()
                .chain(&devices.mounts)
                .map(|volume| Bind {
                    source: volume.source.clone(),
                    target: volume.target.clone(),
                    writable: volume.writable,
                })
                .collect(),
            devices: devices
                .nodes
                .iter()
                .map(|node| Bind {
                    source: node.host.clone(),
                    target: node.inside.clone(),
                    writable: true,
                })
                .collect(),
            links: devices.links,
            library_folders: devices.library_folders,
            env: devices.env,
            cgroup: cgroup.map(|cgroup| cgroup.dir().to_owned()),
            may_restart: mode.may_restart,
            search: self.environment.search.clone().into(),
        }
    }
}

/// The engine's end of the socket to `__launch`.
pub(crate) struct Launcher {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Launcher {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (read, write) = tokio::net::UnixStream::from_std(socket)?.into_split();
        let lines = BufReader::new(read).lines();
        Ok(Self { lines, write })
    }

    /// What it says next; `None` when it is gone.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if let Some(said) = Said::parse(&line) {
                return Some(said);
            }
        }
        None
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }
}

/// Why the network could not be laid: a launcher that could not make its mounts has ended, and its
/// network with it, which is no fault of the network.
async fn network_or_mounts(launcher: &mut Launcher, error: io::Error) -> LaunchError {
    match tokio::time::timeout(LAST_WORDS, launcher.next()).await {
        Ok(Some(Said::Failed(reason))) => LaunchError::Helper(reason),
        _ => LaunchError::Network(error),
    }
}
