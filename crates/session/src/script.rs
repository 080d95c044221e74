//! Running a test's Python script.
//!
//! The script is a client: a CPython of the host runs our package, which connects to the session's
//! socket and tells over it how the script ended. Its process group ends with it; all that it
//! started carries the session's mark, so that nothing of it outlives the session.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use machinist_events::{Stream, What};
use machinist_sys::process::{self, Child, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe;

use crate::Cancel;
use crate::directory::ProcessList;
use crate::engine::find;
use crate::leftovers::SCRIPT_OF;
use crate::log::Log;
use crate::path_error::{At, PathError};
use crate::python;

/// What a CPython is called.
const PYTHON: &str = "python3";
/// What Python ends with when it is older than the package needs. Not a status that programs use.
const TOO_OLD: i32 = 213;
/// How long an interrupted script may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long the output of an ended script is waited for, if something holds it open.
const OUTPUT: Duration = Duration::from_millis(200);

/// Checks Python's version before anything is imported that an old one could not read, then runs
/// the package as `python -m machinist.run` would.
const BOOTSTRAP: &str = "import sys
sys.version_info < (3, 10) and sys.exit(213)
sys.path[:] = [sys.argv.pop(1)] + [path for path in sys.path if path]
from machinist.run import main
sys.exit(main(sys.argv[1:]))";

/// A script could not be run.
#[derive(Debug, Error)]
pub(crate) enum ScriptError {
    /// There is no Python.
    #[error(
        "test scripts need CPython 3.10 or newer, and there is no python3 on the search path: \
         install it (on Debian: apt-get install python3)"
    )]
    NoPython,
    /// There is an old Python.
    #[error(
        "test scripts need CPython 3.10 or newer, and {} is older: install a newer one, and put \
         it first on the search path as python3", .0.display()
    )]
    OldPython(PathBuf),
    /// The script.
    #[error(transparent)]
    Path(#[from] PathError),
    /// What we give it along.
    #[error(transparent)]
    Packages(PathError),
    /// The process.
    #[error("cannot run {}", python.display())]
    Process {
        /// The interpreter.
        python: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A script, and what it needs.
pub(crate) struct Script<'a> {
    /// The script.
    pub(crate) path: &'a Path,
    /// Where it runs.
    pub(crate) cwd: &'a Path,
    /// The session's directory.
    pub(crate) session: &'a Path,
    /// The session's socket.
    pub(crate) socket: &'a Path,
    /// Where `copy_from_machine` puts files, if not where it runs.
    pub(crate) out: Option<&'a Path>,
    /// Where Python is looked for.
    pub(crate) search: &'a OsStr,
    /// Where what it prints goes.
    pub(crate) log: &'a Arc<Log>,
    /// Where its process is noted.
    pub(crate) processes: &'a ProcessList,
    /// It gets our standard streams and our terminal, and a person types.
    pub(crate) terminal: bool,
}

impl Script<'_> {
    /// Runs it to its end. `cancel` thrown: interrupts it as Ctrl-C would, and kills it if that
    /// does not help. `kill` thrown: kills it.
    pub(crate) async fn run(
        &self,
        cancel: &Cancel,
        kill: &Cancel,
    ) -> Result<ExitStatus, ScriptError> {
        let python = find(self.search, PYTHON).ok_or(ScriptError::NoPython)?;
        let broken = |source| ScriptError::Process {
            python: python.clone(),
            source,
        };
        if self.terminal {
            let status = self.at_terminal(&python, cancel, kill).await?;
            return checked(status, python);
        }
        let mut child = self.start(&python)?;
        self.processes.add(child.pid());
        let stdout = self.tell(child.stdout.take().map(OwnedFd::from), Stream::Stdout);
        let stderr = self.tell(child.stderr.take().map(OwnedFd::from), Stream::Stderr);
        let mut telling = [stdout.map_err(broken)?, stderr.map_err(broken)?];
        let status = watch(child, cancel, kill).await.map_err(broken)?;
        for task in &mut telling {
            // What a daemon of the script still holds open is nothing to wait for.
            drop(tokio::time::timeout(OUTPUT, &mut *task).await);
            task.abort();
        }
        checked(status, python)
    }

    /// Runs it at our terminal, in our process group: Ctrl-C and Ctrl-Z reach it as they do in any
    /// program.
    async fn at_terminal(
        &self,
        python: &Path,
        cancel: &Cancel,
        kill: &Cancel,
    ) -> Result<ExitStatus, ScriptError> {
        let broken = |source| ScriptError::Process {
            python: python.to_owned(),
            source,
        };
        let mut command = self.command(python)?;
        command
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        // Not by `sys::process`, which gives each child a group of its own. What is left of it when
        // we are killed, the guard finds by its environment.
        let child = command.spawn().map_err(broken)?;
        self.processes.add(child.id());
        watch_prompt(child, cancel, kill).await.map_err(broken)
    }

    fn command(&self, python: &Path) -> Result<Command, ScriptError> {
        let packages = self.session.join("python");
        python::write(&packages).map_err(ScriptError::Packages)?;
        // A missing script is a clear sentence here, and a traceback of our package there.
        std::fs::metadata(self.path).at("read the script", self.path)?;
        let mut command = Command::new(python);
        command
            .arg("-c")
            .arg(BOOTSTRAP)
            .arg(&packages)
            .arg(self.path)
            .current_dir(self.cwd)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUTF8", "1")
            .env("MACHINIST_SESSION", self.socket)
            .env(SCRIPT_OF, self.session)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(out) = self.out {
            command.env("MACHINIST_OUT", out);
        }
        Ok(command)
    }

    fn start(&self, python: &Path) -> Result<Child, ScriptError> {
        process::spawn(self.command(python)?).map_err(|source| ScriptError::Process {
            python: python.to_owned(),
            source,
        })
    }

    /// Tells lines as events, on a task of its own.
    fn tell(
        &self,
        output: Option<OwnedFd>,
        stream: Stream,
    ) -> io::Result<tokio::task::JoinHandle<()>> {
        let log = Arc::clone(self.log);
        let output = output.ok_or_else(|| io::Error::other("its output is not piped"))?;
        let output = pipe::Receiver::from_owned_fd(output)?;
        Ok(tokio::spawn(tell_lines(output, stream, log)))
    }
}

/// Tells an old Python from a script that ended.
fn checked(status: ExitStatus, python: PathBuf) -> Result<ExitStatus, ScriptError> {
    if status.code() == Some(TOO_OLD) {
        return Err(ScriptError::OldPython(python));
    }
    Ok(status)
}

async fn tell_lines(output: impl AsyncRead + Unpin, stream: Stream, log: Arc<Log>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = machinist_events::printed_line(&line);
        log.emit(What::ScriptOutput { stream, line: text });
        line.clear();
    }
}

/// Ends when the process of a pidfd does.
fn end_of(pidfd: OwnedFd) -> tokio::task::JoinHandle<()> {
    // A thread that waits in the kernel; it ends with the child, which nothing can keep alive.
    tokio::task::spawn_blocking(move || {
        let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
        while rustix::event::poll(&mut polled, None) == Err(Errno::INTR) {}
    })
}

/// Waits for the end of a script that a person types to. It is interrupted from the keyboard alone:
/// `cancel` is for the end of the whole session.
async fn watch_prompt(
    mut child: std::process::Child,
    cancel: &Cancel,
    kill: &Cancel,
) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process id"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut ended = end_of(pidfd.try_clone()?);
    tokio::select! {
        _ = &mut ended => return child.wait(),
        () = kill.cancelled() => {}
        () = cancel.cancelled() => {
            // As when its terminal goes; prompts keep their history then.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::HUP);
            tokio::select! {
                over = tokio::time::timeout(GRACE, &mut ended) => if over.is_ok() {
                    return child.wait();
                },
                () = kill.cancelled() => {}
            }
        }
    }
    child.kill()?;
    drop(ended.await);
    child.wait()
}

/// Waits for the end of a script, and brings it about where that is wanted.
async fn watch(mut child: Child, cancel: &Cancel, kill: &Cancel) -> io::Result<ExitStatus> {
    let mut ended = end_of(child.as_fd().try_clone_to_owned()?);
    tokio::select! {
        _ = &mut ended => return child.wait(),
        () = kill.cancelled() => {}
        () = cancel.cancelled() => {
            child.signal_group(Signal::INT)?;
            tokio::select! {
                over = tokio::time::timeout(GRACE, &mut ended) => if over.is_ok() {
                    return child.wait();
                },
                () = kill.cancelled() => {}
            }
        }
    }
    child.kill_group()?;
    // It only returns what the thread has, which is nothing.
    drop(ended.await);
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_python_ends_with_its_own_status() {
        assert!(BOOTSTRAP.contains(&TOO_OLD.to_string()));
    }

    #[test]
    fn python_is_found_on_the_search_path_only() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find(directory.path().as_os_str(), PYTHON), None);
        std::os::unix::fs::symlink("/bin/sh", directory.path().join("python3")).unwrap();
        let search = std::env::join_paths([Path::new("/nonexistent"), directory.path()]).unwrap();
        assert_eq!(
            find(&search, PYTHON),
            Some(directory.path().join("python3"))
        );
    }
}
