//! The guard: a process that outlives its engine, to clean up after it.
//!
//! It is our own program with the hidden verb `__guard`. It holds the reading end of a pipe whose
//! only writing end is the engine's. One byte means that the engine has cleaned up itself; the end
//! without one means that the engine is dead, by whatever hand. Then the guard takes the session's
//! lock, which only a dead engine lets go, and removes what is left.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::{directory, leftovers};

pub(crate) const VERB: &str = "__guard";
const ARMED: u8 = b'a';
const RELEASED: u8 = b'r';

/// The guard could not be started.
#[derive(Debug, Error)]
#[error("cannot start the guard process ({} {VERB})", exe.display())]
pub struct GuardError {
    exe: PathBuf,
    #[source]
    source: io::Error,
}

/// A session's guard. Dropping it without [`Guard::release`] makes it clean up.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard of the session at `session`, and waits until it is on watch. To be done
    /// before there is anything there, so that at no moment anything is unguarded.
    pub(crate) fn start(exe: &Path, session: &Path) -> Result<Self, GuardError> {
        let error = |source| GuardError {
            exe: exe.to_owned(),
            source,
        };
        // Not by `sys::process`: it must not die with us. The group of its own keeps Ctrl-C away
        // from the first moment on.
        let mut child = Command::new(exe)
            .arg(VERB)
            .arg(session)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(error)?;
        let mut armed = [0_u8];
        let heard = match child.stdout.take() {
            Some(mut stdout) => stdout.read_exact(&mut armed),
            None => Err(io::Error::other("its output is not piped")),
        };
        let pipe = child.stdin.take();
        let guard = Self { child, pipe };
        heard.map_err(error)?;
        Ok(guard)
    }

    /// Tells the guard that nothing is left, and reaps it.
    pub(crate) fn release(mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A guard that somebody killed has nothing to be told.
            drop(pipe.write_all(&[RELEASED]));
        }
        drop(self.child.wait());
    }
}

/// Runs the guard if that is what the arguments (with the program's own name) ask for. To be called
/// first in `main`, before any thread is made.
#[must_use]
pub fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, session] = args else {
        return None;
    };
    if verb != VERB {
        return None;
    }
    Some(match watch(Path::new(session)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn watch(session: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    // Whoever ends the engine by a signal often sends it to all around. A handler that does nothing
    // is what safe code has for ignoring one.
    let mut ignored = Vec::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        ignored.push(signal(kind)?);
    }
    let mut stdout = io::stdout();
    stdout.write_all(&[ARMED])?;
    stdout.flush()?;
    // The engine's end of this pipe is closed by now, and nothing else is ever written to it.
    let mut word = Vec::new();
    io::stdin().lock().read_to_end(&mut word)?;
    if word == [RELEASED] {
        return Ok(());
    }
    let lock = match directory::lock(session) {
        // Removed by a sweep, or by the engine with its last breath.
        Err(error) if error.io().kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock.map_err(io::Error::other)?,
    };
    let left = leftovers::clean_up(session);
    drop(lock);
    drop(ignored);
    if left.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(left.join("; ")))
    }
}
