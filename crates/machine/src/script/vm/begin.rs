//! Starting a VM's script, and the way to the QEMU that it starts.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::supervise::{Said, Script, Start};
use super::{ScriptVm, argv};
use crate::error::LaunchError;
use crate::path_error::{PathContext, PathError};
use crate::qemu::qmp::{Event, Qmp, Quit};
use crate::unique::ShortPath;
use crate::words::{self, Words};

/// How long QEMU's sockets may take to be there, once its monitor has connected.
const CONTROL: Duration = Duration::from_secs(10);
/// How long a QEMU that is only looked at may take to be there, and to end.
const LOOK: Duration = Duration::from_secs(60);

/// A script that was started, and the sockets that its QEMU connects to.
pub(super) struct Begun {
    pub(super) script: Script,
    pub(super) monitor: UnixListener,
    pub(super) shell: UnixListener,
}

impl ScriptVm {
    /// Starts the script, with these arguments behind those of the contract.
    pub(super) fn begin(
        &self,
        extra: &[OsString],
        may_restart: bool,
    ) -> Result<Begun, LaunchError> {
        let spec = &self.spec;
        spec.directories()?;
        let monitor = self.listen(argv::MONITOR)?;
        let shell = self.listen(argv::SHELL)?;
        for name in [argv::QMP, argv::AGENT] {
            self.remove(name)?;
        }
        let mut arguments = argv::arguments(spec, may_restart);
        arguments.extend_from_slice(extra);
        let script = Script::start(&Start {
            exe: &self.environment.exe,
            command: &spec.command,
            arguments: &arguments,
            environment: &argv::environment(spec),
            dir: &spec.state_dir,
        });
        Ok(Begun {
            script: script.map_err(|source| LaunchError::Spawn {
                program: spec.command.clone(),
                source,
            })?,
            monitor,
            shell,
        })
    }

    fn remove(&self, name: &str) -> Result<(), PathError> {
        let path = self.spec.state_dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).path(&path),
            _ => Ok(()),
        }
    }

    fn listen(&self, name: &str) -> Result<UnixListener, PathError> {
        self.remove(name)?;
        let dir = &self.spec.state_dir;
        let short = ShortPath::new(dir).path(dir)?;
        UnixListener::bind(short.join(name)).path(&dir.join(name))
    }
}

/// Connects to the control socket of the QEMU that works in `dir`; tells also its process.
pub(super) async fn control(
    dir: &Path,
) -> io::Result<(Qmp, mpsc::UnboundedReceiver<Event>, Option<u32>)> {
    let short = ShortPath::new(dir)?;
    let socket = there(|| std::os::unix::net::UnixStream::connect(short.join(argv::QMP))).await?;
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;
    // Whoever listens on it: the script itself may still be there, or be another.
    let pid = socket.peer_cred()?.pid();
    let (qmp, events) = Qmp::start(socket);
    Ok((qmp, events, pid.and_then(|pid| u32::try_from(pid).ok())))
}

/// Connects to a socket that QEMU is about to listen on. Nothing tells when it does.
pub(super) async fn there<T>(connect: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + CONTROL;
    let mut pause = Duration::from_millis(1);
    loop {
        match connect() {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A script that runs only to be looked at.
pub(super) struct Looked {
    begun: Begun,
    said: Words,
    readers: Vec<JoinHandle<()>>,
}

impl Looked {
    pub(super) fn new(mut begun: Begun) -> io::Result<Self> {
        let said = Words::default();
        let mut readers = Vec::new();
        if let Some(stdout) = begun.script.stdout.take() {
            readers.push(words::drain(stdout, |_| {})?);
        }
        if let Some(stderr) = begun.script.stderr.take() {
            readers.push(words::words(stderr, said.clone())?);
        }
        Ok(Self {
            begun,
            said,
            readers,
        })
    }

    /// Its QEMU, as soon as that is there.
    pub(super) async fn qemu(&mut self, dir: &Path) -> Result<(Qmp, u32), String> {
        let Begun {
            script, monitor, ..
        } = &mut self.begun;
        let there = async {
            let (_monitor, _) = monitor.accept().await?;
            let (qmp, _, pid) = control(dir).await?;
            let pid = pid.ok_or_else(|| io::Error::other("QEMU is in another PID namespace"))?;
            io::Result::Ok((qmp, pid))
        };
        let ended = async {
            loop {
                if !matches!(script.next().await, Said::Running(_)) {
                    return;
                }
            }
        };
        let found = tokio::select! {
            found = tokio::time::timeout(LOOK, there) => found.map_err(|_| None),
            () = ended => Err(Some(())),
        };
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(error.to_string()),
            Err(None) => Err("QEMU does not begin".to_owned()),
            Err(Some(())) => Err(self.last_words().await),
        }
    }

    /// Why the script ended, in its own words.
    async fn last_words(&mut self) -> String {
        for reader in &mut self.readers {
            drop(tokio::time::timeout(Duration::from_millis(500), reader).await);
        }
        let last = self.said.lines().pop();
        last.unwrap_or_else(|| "its script ended without a word".to_owned())
    }

    /// Ends it, in order where QEMU is there.
    pub(super) async fn end(mut self, qmp: Option<&Qmp>) {
        if let Some(qmp) = qmp {
            let ended = async {
                drop(qmp.perform(&Quit {}).await);
                while matches!(self.begun.script.next().await, Said::Running(_)) {}
            };
            drop(tokio::time::timeout(LOOK, ended).await);
        }
        self.begun.script.kill().await;
    }
}
