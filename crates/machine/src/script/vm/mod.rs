//! VMs that a start script runs.
//!
//! The script is given more arguments for QEMU ([`argv`]): sockets for QMP, the monitor, the root
//! shell on `hvc0`, and a port for our agent. Through the shell the agent is brought
//! (`machinist_guest::shell`); it then speaks on its port, as in a VM of our own.

mod argv;
mod run;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::ScriptSpec;
use super::supervise::{Script, Start};
use crate::backend::{Mode, Run};
use crate::console::Console;
use crate::environment::Environment;
use crate::error::LaunchError;
use crate::path_error::{PathContext, PathError};
use crate::qemu::panic::PanicFinder;
use crate::reach::ConsoleInput;
use crate::unique::ShortPath;
use crate::words::{self, Words};

/// One machine's backend.
pub(crate) struct ScriptVm {
    pub(crate) spec: ScriptSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
}

impl ScriptVm {
    pub(crate) async fn launch(self: Arc<Self>, mode: Mode) -> Result<Run, LaunchError> {
        let spec = &self.spec;
        spec.directories()?;
        let monitor = self.listen(argv::MONITOR)?;
        let shell = self.listen(argv::SHELL)?;
        for name in [argv::QMP, argv::AGENT] {
            self.clear(name)?;
        }
        let failed = |source| LaunchError::Spawn {
            program: spec.command.clone(),
            source,
        };
        let mut script = Script::start(&Start {
            exe: &self.environment.exe,
            command: &spec.command,
            arguments: &argv::arguments(spec, mode.may_restart),
            environment: &argv::environment(spec),
            dir: &spec.state_dir,
        })
        .map_err(failed)?;
        let (seen, signs) = mpsc::unbounded_channel();
        let words = Words::default();
        let readers = self.read(&mut script, seen, &words).map_err(failed)?;
        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        let running = run::Running {
            console: script.stdin.take().map(ConsoleInput::new),
            this: Arc::clone(&self),
            script,
            pid: None,
            doors: None,
            agent: false,
            console_signs: signs,
            controlled,
            tell,
            words,
            readers,
            panic: None,
            shutdown: None,
            may_restart: mode.may_restart,
        };
        Ok(Run {
            control,
            early: VecDeque::new(),
            happenings,
            task: tokio::spawn(running.run(monitor, shell)),
        })
    }

    /// Reads what the script and QEMU print. All of it is the console's, as in NixOS' driver; what
    /// goes to the standard error is kept for the last words.
    fn read(
        &self,
        script: &mut Script,
        seen: mpsc::UnboundedSender<String>,
        said: &Words,
    ) -> io::Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut readers = Vec::new();
        if let Some(stdout) = script.stdout.take() {
            let console = self.console.clone();
            let mut finder = PanicFinder::default();
            readers.push(words::drain(stdout, move |bytes| {
                console.feed(bytes);
                if let Some(panic) = finder.feed(bytes) {
                    // Nobody looks at it any more when the run is over.
                    drop(seen.send(panic));
                }
            })?);
        }
        if let Some(stderr) = script.stderr.take() {
            readers.push(words::tee(stderr, self.console.clone(), said.clone())?);
        }
        Ok(readers)
    }

    fn clear(&self, name: &str) -> Result<(), PathError> {
        let path = self.spec.state_dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).path(&path),
            _ => Ok(()),
        }
    }

    fn listen(&self, name: &str) -> Result<UnixListener, PathError> {
        self.clear(name)?;
        let dir = &self.spec.state_dir;
        let short = ShortPath::new(dir).path(dir)?;
        UnixListener::bind(short.join(name)).path(&dir.join(name))
    }
}
