//! The built program, and running it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::Ran;

/// How long one call of the program may take, on a host with much else to do; more is a hang. So
/// long may its output be open after its end, too.
const LIMIT: Duration = Duration::from_secs(480);

/// The variable that names a program to test in the place of the one that cargo builds: one that is
/// installed, or that is built already.
pub const OTHER_PROGRAM: &str = "MACHINIST_TESTS_PROGRAM";

/// The `machinist` program, built when it is first asked for.
///
/// # Panics
/// It does not build.
pub fn machinist() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build().expect("the machinist program builds"))
}

fn build() -> Result<PathBuf> {
    if let Some(other) = std::env::var_os(OTHER_PROGRAM) {
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

/// What comes out of a stream.
#[derive(Debug)]
struct Collected {
    all: Arc<Mutex<Vec<u8>>>,
    /// Hangs up when nobody can write to the stream any more.
    open: Receiver<()>,
}

fn collect(mut stream: Option<impl std::io::Read + Send + 'static>) -> Collected {
    let all = Arc::new(Mutex::new(Vec::new()));
    let (end, open) = mpsc::channel();
    let into = Arc::clone(&all);
    std::thread::spawn(move || {
        let _end = end;
        let mut buffer = vec![0; 1 << 16];
        // What was read until an error is what there is.
        while let Some(count) = stream.as_mut().and_then(|it| read(it, &mut buffer)) {
            let mut all = into.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(&buffer[..count]);
        }
    });
    Collected { all, open }
}

/// `None` at the end.
fn read(stream: &mut impl std::io::Read, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.ok().filter(|count| *count > 0),
        }
    }
}

impl Collected {
    /// All of it; and whether it is open even so, after [`LIMIT`].
    fn all(self) -> (Vec<u8>, bool) {
        let is_open = self.open.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut all), is_open)
    }
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
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout_bytes, stdout_is_open) = self.stdout.all();
        let (stderr, stderr_is_open) = self.stderr.all();
        let (stdout, stderr) = (text(&stdout_bytes), text(&stderr));
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
        if stdout_is_open || stderr_is_open {
            bail!("it has ended, but something that it started holds its output: {ran}");
        }
        Ok(ran)
    }
}
