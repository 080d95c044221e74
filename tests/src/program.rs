//! The built program, and running it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::Ran;

/// How long one call of the program may take, on a host with much else to do; more is a hang.
const LIMIT: Duration = Duration::from_secs(480);

/// Names a program to test in the place of the one that cargo builds, such as an installed one.
const OTHER: &str = "MACHINIST_TESTS_PROGRAM";

/// The `machinist` program, built when it is first asked for.
///
/// # Panics
/// It does not build.
pub fn machinist() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build().expect("the machinist program builds"))
}

fn build() -> Result<PathBuf> {
    if let Some(other) = std::env::var_os(OTHER) {
        return Ok(PathBuf::from(other));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--package", "machinist-cli"])
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo build: {status}");
    }
    // We lie beside it, tests in target/debug/deps.
    let own = std::env::current_exe().context("cannot find this program")?;
    let folder = own.ancestors().skip(1).find(|it| !it.ends_with("deps"));
    Ok(folder
        .context("this program lies in no target directory")?
        .join("machinist"))
}

/// The program, about to run.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
}

impl Command {
    pub(crate) fn new(directory: &Path) -> Self {
        let mut inner = std::process::Command::new(machinist());
        inner
            .current_dir(directory)
            .stdin(Stdio::null())
            .env_remove("NO_COLOR");
        Self { inner }
    }

    /// Another program, of which the same is wanted.
    pub(crate) fn of(inner: std::process::Command) -> Self {
        Self { inner }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    /// Calls it by another name.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        self.inner.arg0(name);
        self
    }

    /// Unsets a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.inner.env_remove(name);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn run(self) -> Result<Ran> {
        self.start()?.wait()
    }

    /// Runs it to its end with `input` on its standard input.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn run_with_input(mut self, input: &[u8]) -> Result<Ran> {
        self.inner.stdin(Stdio::piped());
        let mut running = self.start()?;
        let mut stdin = running.child.stdin.take().context("it has no input")?;
        let input = input.to_vec();
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
        let ran = running.wait();
        // A program that ended without reading all is not the writer's fault.
        drop(writing.join());
        ran
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut self) -> Result<Running> {
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self
            .inner
            .spawn()
            .with_context(|| format!("cannot start {}", self.inner.get_program().display()))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Ok(Running {
            words: std::iter::once(self.inner.get_program())
                .chain(self.inner.get_args())
                .map(OsStr::to_owned)
                .collect(),
            began: Instant::now(),
            child,
            stdout,
            stderr,
        })
    }
}

type Collected = std::thread::JoinHandle<Vec<u8>>;

fn collect(stream: Option<impl std::io::Read + Send + 'static>) -> Collected {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until the error is what there is.
            drop(stream.read_to_end(&mut all));
        }
        all
    })
}

/// The program, running.
#[derive(Debug)]
pub struct Running {
    words: Vec<OsString>,
    began: Instant,
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It cannot be another process: nobody has waited for ours yet.
            _ = kill_process(pid, signal);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits until it ends. A hang ends it, with an error that tells what it said.
    ///
    /// # Errors
    /// It takes longer than the limit.
    pub fn wait(mut self) -> Result<Ran> {
        let ended = crate::wait_until(LIMIT, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait().context("cannot wait for machinist")?;
        let text = |stream: Collected| {
            let bytes = stream.join().unwrap_or_default();
            (String::from_utf8_lossy(&bytes).into_owned(), bytes)
        };
        let (stdout, stdout_bytes) = text(self.stdout);
        let (stderr, _) = text(self.stderr);
        let ran = Ran {
            words: self.words,
            status,
            stdout,
            stdout_bytes,
            stderr,
            took: self.began.elapsed(),
        };
        if ended.is_none() {
            bail!("it hangs: {ran}");
        }
        Ok(ran)
    }
}
