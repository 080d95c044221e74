//! Commands, as the host describes them.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use machinist_wire::message::{self, Exit, Program, Size};

/// A command to be run in a guest. By default it runs as root, in root's home, with the
/// environment of a login, nothing on its standard input, and as long as it likes.
#[derive(Debug, Clone)]
pub struct Command {
    pub(crate) request: message::Command,
    pub(crate) timeout: Option<Duration>,
}

impl Command {
    fn of(program: Program) -> Self {
        Self {
            request: message::Command {
                program,
                env: Vec::new(),
                clear_env: false,
                dir: None,
                user: None,
                stdin: false,
                pty: None,
                linger: false,
            },
            timeout: None,
        }
    }

    /// A program and its arguments. The program is looked for in the guest's search path.
    pub fn argv<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        let words = words.into_iter().map(|word| (&word).into()).collect();
        Self::of(Program::Argv(words))
    }

    /// A script for the guest's bash, begun with `set -euo pipefail`. Where there is no bash it is
    /// for `sh`, begun with `set -eu`.
    pub fn shell(script: impl AsRef<OsStr>) -> Self {
        let script = (&script).into();
        Self::of(Program::Shell {
            script,
            strict: true,
        })
    }

    /// A script without any `set` before it.
    pub fn plain_shell(script: impl AsRef<OsStr>) -> Self {
        let script = (&script).into();
        Self::of(Program::Shell {
            script,
            strict: false,
        })
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.request
            .env
            .push((name.into().into(), value.into().into()));
        self
    }

    /// Leaves the environment of the login out.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.request.clear_env = true;
        self
    }

    /// Sets the directory that it runs in.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<OsStr>) -> Self {
        self.request.dir = Some((&dir).into());
        self
    }

    /// Sets the user, by name or number.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.request.user = Some(user.into());
        self
    }

    /// Ends it, with all of its process group, when it has run this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives it a standard input: [`Process::stdin`](crate::Process::stdin).
    #[must_use]
    pub fn stdin(mut self) -> Self {
        self.request.stdin = true;
        self
    }

    /// Runs it on a terminal, which is its standard input, output and error.
    #[must_use]
    pub fn pty(mut self, size: Size) -> Self {
        self.request.pty = Some(size);
        self
    }

    /// Lets the output go on after the command's own end, until nobody in the guest holds it any
    /// more. Without this, what a background process prints later is thrown away.
    #[must_use]
    pub fn linger(mut self) -> Self {
        self.request.linger = true;
        self
    }
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// How long it took, as seen from the host.
    pub duration: Duration,
}

impl Output {
    /// Whether it ended itself with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// The status as a shell gives it: 128 and the number for a signal, 124 for a timeout.
    #[must_use]
    pub fn status(&self) -> i32 {
        crate::process::status(self.exit)
    }
}
